"""Finding and loading executor plug-ins: stevedore finds the one that is named, pluggy holds it to the hooks."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import pluggy
from pydantic import ValidationError

from durable_monty.errors import ConfigError, PluginError
from durable_monty.explain import explain
from durable_monty.hookspecs import ENTRY_POINT_GROUP, PROJECT, REQUIRED_HOOKS, ExecutorSpec
from durable_monty.loaded import LoadedExecutor


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """An installed executor plug-in, as its distribution describes it.

    Attributes:
        value: What the entry point names, `module:class`.
    """

    name: str
    value: str
    distribution: str
    version: str


def available() -> dict[str, PluginInfo]:
    """Every installed executor plug-in by name; imports none of them."""
    return {
        name: PluginInfo(
            name,
            entry_point.value,
            entry_point.dist.name if entry_point.dist else "",
            entry_point.dist.version if entry_point.dist else "",
        )
        for name, entry_point in sorted(_entry_points().items())
    }


def plugin_class(plugin: str, *, executor_name: str | None = None) -> Any:
    """The class that a plug-in's entry point names; imports that plug-in and no other.

    Raises:
        PluginError: No such plug-in is installed, two have that name, or it does not load.
    """
    from stevedore import NamedExtensionManager
    from stevedore.exception import MultipleMatches
    from stevedore.extension import error_on_conflict

    who = f"executor {executor_name or plugin!r}"
    installed = _entry_points()
    # Fresh metadata in place of stevedore's cache on disk, which misses a distribution installed seconds ago.
    NamedExtensionManager.ENTRY_POINT_CACHE[ENTRY_POINT_GROUP] = list(installed.values())

    def missing(_names: object) -> NoReturn:
        raise PluginError(f"{who}: {missing_message(plugin, list(installed))}")

    def failed(_manager: object, entry_point: EntryPoint, error: BaseException) -> NoReturn:
        raise PluginError(
            f"{who}: its plug-in {entry_point.value!r} did not load: {type(error).__name__}: {error}; "
            "install its distribution again, or report this to its authors"
        ) from error

    try:
        found: Any = NamedExtensionManager(
            ENTRY_POINT_GROUP,
            [plugin],
            on_load_failure_callback=failed,
            on_missing_entrypoints_callback=missing,
            conflict_resolver=error_on_conflict,
        )
    except MultipleMatches as error:
        raise PluginError(
            f"{who}: several installed distributions have a plug-in {plugin!r}; remove one: {error}"
        ) from error
    return found[plugin].plugin


def load(executor_name: str, plugin: str, options: Mapping[str, Any]) -> LoadedExecutor:
    """The executor that a table of the configuration describes.

    Args:
        options: The table's keys besides `plugin`.

    Raises:
        PluginError: The plug-in is missing, does not load, or does not keep to the hooks.
        ConfigError: An option is unknown, missing or of the wrong type.
    """
    cls = plugin_class(plugin, executor_name=executor_name)
    settings_class = getattr(cls, "Settings", None)
    if settings_class is None:
        raise PluginError(f"executor {executor_name!r}: {cls!r} has no class attribute `Settings`, a pydantic model")
    return _registered(executor_name, plugin, cls(_settings(settings_class, executor_name, options)))


def wrap(executor: Any, executor_name: str) -> LoadedExecutor:
    """The executor that was handed over as an object.

    Raises:
        PluginError: It has neither the hooks nor `submit_call` and `get_stats`.
    """
    if isinstance(executor, LoadedExecutor):
        return executor
    kind = type(executor).__name__
    if _implements(executor):
        return _registered(executor_name, kind, executor)
    absent = [name for name in ("submit_call", "get_stats") if not callable(getattr(executor, name, None))]
    if absent:
        raise PluginError(
            f"using {executor!r} as an executor: it has no {' and no '.join(absent)}; derive it from "
            "durable_monty.executor.Executor, or mark methods with @hookimpl"
        )
    from durable_monty.executor import DuckExecutor

    return _registered(executor_name, kind, DuckExecutor(executor))


def missing_message(plugin: str, installed: list[str]) -> str:
    """What to say about a plug-in that is not installed."""
    near = difflib.get_close_matches(plugin, installed, 1)
    hint = f"did you mean {near[0]!r}? Else run" if near else "run"
    return (
        f"no executor plug-in {plugin!r} is installed in {sys.prefix}; installed: "
        f"{', '.join(sorted(installed)) or 'none'}; {hint} `pip install durable-monty-{plugin}`"
    )


def _entry_points() -> dict[str, EntryPoint]:
    return {item.name: item for item in entry_points(group=ENTRY_POINT_GROUP)}


def _settings(settings_class: Any, executor_name: str, options: Mapping[str, Any]) -> Any:
    try:
        return settings_class(**options)
    except ValidationError as error:
        raise ConfigError(explain(error, settings_class, ("executors", executor_name), "the configuration")) from error


def _implements(executor: Any) -> bool:
    manager = pluggy.PluginManager(PROJECT)
    return any(manager.parse_hookimpl_opts(executor, hook) is not None for hook in REQUIRED_HOOKS)


def _registered(executor_name: str, plugin: str, implementation: Any) -> LoadedExecutor:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(ExecutorSpec)
    try:
        manager.register(implementation, executor_name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"executor {executor_name!r}: {error}") from error
    absent = [hook for hook in REQUIRED_HOOKS if not getattr(manager.hook, hook).get_hookimpls()]
    if absent:
        raise PluginError(
            f"executor {executor_name!r}: plug-in {plugin!r} implements no {' and no '.join(absent)}; mark the method "
            "with @hookimpl of durable_monty.hookspecs"
        )
    return LoadedExecutor(executor_name, plugin, implementation, manager)

"""Finding and loading executor plug-ins: stevedore finds the one that is named, pluggy holds it to the hooks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import pluggy
from pydantic import BaseModel, ValidationError

from durable_monty import faults
from durable_monty.errors import ConfigError, PluginError
from durable_monty.explain import explain
from durable_monty.faults import PluginInfo
from durable_monty.hookspecs import ENTRY_POINT_GROUP, PROJECT, REQUIRED_HOOKS, ExecutorSpec
from durable_monty.loaded import LoadedExecutor


def available() -> dict[str, PluginInfo]:
    """Every installed executor plug-in by name; imports none of them."""
    return {name: faults.info_of(found[0], found[1:]) for name, found in sorted(_entry_points().items())}


def plugin_class(plugin: str, *, executor_name: str | None = None) -> Any:
    """The class that a plug-in's entry point names; imports that plug-in and no other.

    Raises:
        PluginError: No such plug-in is installed, two have that name, or it does not load.
    """
    from stevedore import NamedExtensionManager

    who = f"executor {executor_name or plugin!r}"
    installed = _entry_points()
    if plugin not in installed:
        raise PluginError(f"{who}: {missing_message(plugin, list(installed))}")
    if len(installed[plugin]) > 1:
        raise PluginError(f"{who}: {faults.duplicated(plugin, installed[plugin])}")
    (entry_point,) = installed[plugin]
    # Fresh metadata in place of stevedore's cache on disk, which misses a distribution installed seconds ago.
    NamedExtensionManager.ENTRY_POINT_CACHE[ENTRY_POINT_GROUP] = [entry_point]

    def failed(_manager: object, _entry_point: EntryPoint, error: BaseException) -> NoReturn:
        raise PluginError(f"{who}: {faults.not_loaded(entry_point, error)}") from error

    try:
        found: Any = NamedExtensionManager(ENTRY_POINT_GROUP, [plugin], on_load_failure_callback=failed)
    except (PluginError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - `sys.exit()` in a plug-in must not end the worker
        failed(None, entry_point, error)
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
    origin = f"plug-in {plugin!r} of {available()[plugin].origin}"
    settings_class = getattr(cls, "Settings", None)
    if not (isinstance(settings_class, type) and issubclass(settings_class, BaseModel)):
        raise PluginError(
            f"executor {executor_name!r}: {origin} cannot be used: {faults.where(cls)}: `Settings` is "
            f"{settings_class!r}; write a pydantic model there"
        )
    settings = _settings(settings_class, executor_name, options)
    try:
        made = cls(settings)
    except Exception as error:
        raise PluginError(
            f"executor {executor_name!r}: {origin} cannot be used: making {faults.where(cls)} raised "
            f"{type(error).__name__}: {error}; mend the settings in [executors.{executor_name}], or report this to its authors"
        ) from error
    return _registered(executor_name, plugin, made, origin)


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
    return faults.missing(plugin, installed)


def _entry_points() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = defaultdict(list)
    for item in entry_points(group=ENTRY_POINT_GROUP):
        found[item.name].append(item)
    return found


def _settings(settings_class: Any, executor_name: str, options: Mapping[str, Any]) -> Any:
    try:
        return settings_class(**options)
    except ValidationError as error:
        raise ConfigError(explain(error, settings_class, ("executors", executor_name), "the configuration")) from error


def _implements(executor: Any) -> bool:
    manager = pluggy.PluginManager(PROJECT)
    return any(manager.parse_hookimpl_opts(executor, hook) is not None for hook in REQUIRED_HOOKS)


def _registered(executor_name: str, plugin: str, implementation: Any, origin: str | None = None) -> LoadedExecutor:
    who = f"executor {executor_name!r}: {origin or f'the object {plugin!r}'} cannot be used"
    kind = type(implementation)
    problem = faults.version_problem(kind)
    problems = [problem] if problem else list(faults.hook_problems(kind, ExecutorSpec))
    if problems:
        raise PluginError(f"{who}: {'; '.join(problems)}")
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(ExecutorSpec)
    try:
        manager.register(implementation, executor_name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{who}: {faults.where(kind)}: {error}") from error
    absent = [hook for hook in REQUIRED_HOOKS if not getattr(manager.hook, hook).get_hookimpls()]
    if absent:
        raise PluginError(
            f"{who}: {faults.where(kind)}: it implements no {' and no '.join(absent)}; mark the method "
            "with @hookimpl of durable_monty.hookspecs"
        )
    return LoadedExecutor(executor_name, plugin, implementation, manager)

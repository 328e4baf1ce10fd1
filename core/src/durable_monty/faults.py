"""What is wrong with an executor plug-in, for its author and for who installed it: file, distribution, remedy."""

from __future__ import annotations

import difflib
import inspect
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from durable_monty.hookspecs import HOOKS, INTERFACE_VERSION, OLDEST_INTERFACE_VERSION, PROJECT


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """An installed executor plug-in, as its distribution describes it.

    Attributes:
        value: What the entry point names, `module:class`.
        rivals: Other installed distributions that have a plug-in of the same name, with their versions.
    """

    name: str
    value: str
    distribution: str
    version: str
    rivals: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version}".strip() or "an unknown distribution"


def info_of(entry_point: EntryPoint, rivals: Sequence[EntryPoint] = ()) -> PluginInfo:
    """What the metadata says of an entry point; imports nothing."""
    dist = entry_point.dist
    others = tuple(info_of(rival).origin for rival in rivals)
    return PluginInfo(
        entry_point.name, entry_point.value, dist.name if dist else "", dist.version if dist else "", others
    )


def missing(plugin: str, installed: Sequence[str]) -> str:
    """What to say about a plug-in that is not installed."""
    near = difflib.get_close_matches(plugin, installed, 1)
    hint = f"did you mean {near[0]!r}? Else run" if near else "run"
    return (
        f"no executor plug-in {plugin!r} is installed in {sys.prefix}; installed: "
        f"{', '.join(sorted(installed)) or 'none'}; {hint} `pip install durable-monty-{plugin}`"
    )


def duplicated(plugin: str, entry_points: Sequence[EntryPoint]) -> str:
    """What to say about a plug-in that several distributions have."""
    found = [f"{info_of(item).origin} ({item.value}, in {_folder(item)})" for item in entry_points]
    names = [item.dist.name for item in entry_points if item.dist is not None]
    return (
        f"several installed distributions have a plug-in {plugin!r}: {' and '.join(found)}; "
        f"remove one, for example `pip uninstall {names[-1] if names else plugin}`"
    )


def not_loaded(entry_point: EntryPoint, error: BaseException) -> str:
    """What to say about a plug-in whose import failed."""
    info = info_of(entry_point)
    return (
        f"its plug-in {entry_point.value!r} of {info.origin} did not load: {type(error).__name__}: {error} "
        f"(in {_raised_at(error) or _folder(entry_point)}); {_import_remedy(info, error)}"
    )


def hook_problems(kind: type, spec: type) -> Iterator[str]:
    """What is wrong with the hooks of a class: unknown names, unknown arguments.

    Args:
        spec: The class of hook specifications.
    """
    for name in dir(kind):
        method = getattr(kind, name, None)
        options = getattr(method, f"{PROJECT}_impl", None)
        if options is None or not callable(method):
            continue
        hook = options.get("specname") or name
        specified = getattr(spec, hook, None)
        if specified is None:
            if not options.get("optionalhook"):
                yield f"{where(method)}: {name!r} is marked with @hookimpl and is no hook; {_unknown_hook(hook)}"
            continue
        known = _arguments(specified)
        for argument in _arguments(method):
            if argument not in known:
                near = difflib.get_close_matches(argument, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it may take: {', '.join(known) or 'none'}"
                yield f"{where(method)}: the hook {hook!r} takes the argument {argument!r}, which it is not given; {hint}"


def version_problem(kind: type) -> str | None:
    """What is wrong with the interface version that a class was written for."""
    declared = getattr(kind, "interface_version", None)
    if declared is None:
        # Written before there was a second one.
        return None
    if not isinstance(declared, int):
        return f"{where(kind)}: interface_version is {declared!r}; write `interface_version = {INTERFACE_VERSION}`"
    if declared > INTERFACE_VERSION:
        return (
            f"{where(kind)}: it was written for interface version {declared}, this core has {INTERFACE_VERSION}; "
            "run `pip install --upgrade durable-monty-core`"
        )
    if declared < OLDEST_INTERFACE_VERSION:
        return (
            f"{where(kind)}: it was written for interface version {declared}, this core calls {OLDEST_INTERFACE_VERSION} "
            "and newer; install a newer version of the plug-in"
        )
    return None


def where(item: Any) -> str:
    """File and line of a class or function."""
    try:
        file = inspect.getsourcefile(item)
        line = inspect.getsourcelines(item)[1]
    except (OSError, TypeError):
        return getattr(item, "__module__", None) or repr(item)
    return f"{file}:{line}"


def _unknown_hook(hook: str) -> str:
    near = difflib.get_close_matches(hook, HOOKS, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    return "take the marker away, or write @hookimpl(optionalhook=True) for a hook of a later core"


def _arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def _folder(entry_point: EntryPoint) -> str:
    return str(entry_point.dist.locate_file("")) if entry_point.dist is not None else "an unknown folder"


def _raised_at(error: BaseException) -> str | None:
    """File and line in the plug-in where an import failed."""
    own = ("importlib", "stevedore", "durable_monty")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not any(part in own for part in Path(frame.filename).parts)
    ]
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _import_remedy(info: PluginInfo, error: BaseException) -> str:
    again = f"install it again with `pip install --force-reinstall {info.distribution}`"
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = info.value.partition(":")[0]
        if module == error.name or module.startswith(error.name + "."):
            return f"its own module is missing; {again}"
        return f"a requirement of it is missing; run `pip install --upgrade {info.distribution}`"
    return f"{again}, or report this to its authors"

"""Stubs for the check at submit: the signatures of host functions, in types that the sandbox has."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from durable_monty import _prelude
from durable_monty.convert import type_hints
from durable_monty.functions import Function

_HEADER = (
    "import datetime, decimal",
    "from collections.abc import Awaitable, Callable, Iterable",
    "from typing import Any, Literal, TypedDict",
)
_PLAIN = frozenset({bool, int, float, complex, str, bytes, object})
_QUALIFIED: Mapping[type, str] = {
    dt.datetime: "datetime.datetime",
    dt.date: "datetime.date",
    dt.time: "datetime.time",
    dt.timedelta: "datetime.timedelta",
    dt.timezone: "datetime.timezone",
    decimal.Decimal: "decimal.Decimal",
    uuid.UUID: "str",
    type(None): "None",
}
_SEQUENCES = frozenset({abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence})
_MAPPINGS = frozenset({dict, abc.Mapping, abc.MutableMapping})
_SETS = frozenset({abc.Set, abc.MutableSet})


def make_stubs(
    functions: Mapping[str, Function[Any]],
    flow: Mapping[str, str],
    inputs: Iterable[str],
    workflows: Iterable[str] = (),
) -> str:
    """The stubs of everything a workflow may use without defining it.

    Args:
        functions: Host functions by the name that the workflow uses.
        flow: Helpers of `durable_monty.flow` by the name that the workflow uses.
        inputs: Names of global inputs.
        workflows: Names of other workflows; a text stands for each.
    """
    writer = _Writer()
    signatures = [writer.function(name, function) for name, function in functions.items()]
    lines = [*_HEADER, *writer.classes.values(), *_prelude.stubs(flow), *signatures]
    lines += [f"{name}: Any" for name in inputs]
    lines += [f"{name}: str" for name in workflows]
    return "\n".join(lines) + "\n"


class _Writer:
    """Writes signatures, and collects the classes that they need."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}

    def function(self, name: str, function: Function[Any]) -> str:
        """One `def` or `async def`: every host function is awaited, unless it is blocking."""
        keyword = "def" if function.options.blocking else "async def"
        try:
            signature = inspect.signature(function.__wrapped__)
        except (TypeError, ValueError):
            return f"{keyword} {name}(*args: Any, **kwargs: Any) -> Any: ..."
        hints = type_hints(function.__wrapped__)
        parameters = self._parameters(signature, hints)
        result = self.spell(hints["return"], is_result=True) if "return" in hints else "Any"
        return f"{keyword} {name}({parameters}) -> {result}: ..."

    def _parameters(self, signature: inspect.Signature, hints: Mapping[str, Any]) -> str:
        parts = []
        is_star_written = False
        previous: inspect.Parameter | None = None
        for parameter in signature.parameters.values():
            kind = parameter.kind
            if previous is not None and previous.kind is previous.POSITIONAL_ONLY and kind is not kind.POSITIONAL_ONLY:
                parts.append("/")
            if kind is kind.KEYWORD_ONLY and not is_star_written:
                parts.append("*")
                is_star_written = True
            star = {kind.VAR_POSITIONAL: "*", kind.VAR_KEYWORD: "**"}.get(kind, "")
            is_star_written = is_star_written or star == "*"
            annotation = self.spell(hints[parameter.name]) if parameter.name in hints else "Any"
            default = "" if parameter.default is parameter.empty else " = ..."
            parts.append(f"{star}{parameter.name}: {annotation}{default}")
            previous = parameter
        if previous is not None and previous.kind is previous.POSITIONAL_ONLY:
            parts.append("/")
        return ", ".join(parts)

    def spell(self, annotation: Any, *, is_result: bool = False) -> str:
        """An annotation in the sandbox's types; `Any` where there is none that fits."""
        if annotation is None:
            return "None"
        if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
            return self._class(annotation, is_result)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self.spell(arguments[0], is_result=is_result)
        if origin in (typing.Union, types.UnionType):
            return " | ".join(dict.fromkeys(self.spell(item, is_result=is_result) for item in arguments))
        if origin is typing.Literal:
            is_plain = all(item is None or type(item) in (str, int, bool, bytes) for item in arguments)
            return f"Literal[{', '.join(map(repr, arguments))}]" if is_plain else "Any"
        if origin is not None:
            return self._generic(
                origin, [self.spell(item, is_result=is_result) for item in arguments if item is not ...], arguments
            )
        target = getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
        return self.spell(target, is_result=is_result) if target is not None else "Any"

    def _class(self, cls: type, is_result: bool) -> str:
        if cls in _PLAIN:
            return cls.__name__
        if cls in _QUALIFIED:
            return _QUALIFIED[cls]
        if issubclass(cls, enum.Enum):
            return "Any"
        if cls in (list, set, frozenset):
            return f"{cls.__name__}[Any]"
        if cls is tuple:
            return "tuple[Any, ...]"
        if typing.is_typeddict(cls):
            return self._typed_dict(cls) if is_result else "dict[str, Any]"
        if cls is dict or hasattr(cls, "model_validate") or dataclasses.is_dataclass(cls):
            return "dict[Any, Any]" if cls is dict else "dict[str, Any]"
        return "Any"

    def _generic(self, origin: Any, items: list[str], arguments: tuple[Any, ...]) -> str:
        if origin in (list, set, frozenset) and len(items) == 1:
            return f"{origin.__name__}[{items[0]}]"
        if origin is tuple:
            return f"tuple[{', '.join(items) or '()'}{', ...' if ... in arguments else ''}]"
        if origin in _MAPPINGS and len(items) == 2:
            return f"dict[{items[0]}, {items[1]}]"
        if origin in _SEQUENCES and len(items) == 1:
            return f"list[{items[0]}] | tuple[{items[0]}, ...]"
        if origin in _SETS and len(items) == 1:
            return f"set[{items[0]}] | frozenset[{items[0]}]"
        return "Any"

    def _typed_dict(self, cls: Any) -> str:
        # Names that begin with an underscore cannot be seen from outside a stub.
        name = cls.__name__.lstrip("_") or "Typed"
        if name not in self.classes:
            self.classes[name] = ""
            fields = "".join(
                f"\n    {key}: {self.spell(hint, is_result=True)}" for key, hint in type_hints(cls).items()
            )
            self.classes[name] = f"class {name}(TypedDict, total={cls.__total__}):{fields or ' pass'}"
        return name

"""Between a function's own types and what crosses the border: pydantic models, dataclasses, Enum and UUID.

Outwards (`plain`) they become dicts, values and texts; inwards (`bind`) the function's annotations say what to make of
those. Standard library only: pydantic models are known by their methods, and pydantic is never imported.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from durable_monty.codec import MAX_DEPTH

Converter = Callable[[Any, str], Any]
"""Makes a value fit an annotation; the second argument is the path that errors name."""

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
_ITEM_ORIGINS = frozenset(
    {list, set, frozenset, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection, abc.Set, abc.MutableSet}
)
_MAPPING_ORIGINS = frozenset({dict, abc.Mapping, abc.MutableMapping})


def plain(value: Any, depth: int = 0) -> Any:
    """The value with models and dataclasses as dicts, Enum members as their values, UUIDs as text.

    What is nested more deeply than the codec carries is left as it is, for the codec to refuse by its path.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if depth > MAX_DEPTH:
        return value
    if kind in (list, tuple, set, frozenset):
        return kind(plain(item, depth + 1) for item in value)
    if kind is dict:
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return plain(value.value, depth)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, type):
        return value
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name), depth + 1) for field in dataclasses.fields(value)}
    if _is_model(kind):
        return plain(value.model_dump(), depth)
    return value


def bind(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, converted as the function's annotations say.

    Raises:
        TypeError: A value does not fit, or an argument is missing or superfluous; the message names the parameter.
        ValueError: A value is of the right type, but not one of those allowed.
    """
    try:
        plan = _plan(function)
    except TypeError:
        # Not hashable; or no signature can be had, as of some built-in functions.
        return tuple(args), dict(kwargs)
    if plan is None:
        return tuple(args), dict(kwargs)
    bound = plan.signature.bind(*args, **kwargs)
    for name, convert in plan.converters.items():
        if name not in bound.arguments:
            continue
        kind = plan.signature.parameters[name].kind
        value = bound.arguments[name]
        if kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[name] = tuple(convert(item, f"{name}[{i}]") for i, item in enumerate(value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            bound.arguments[name] = {key: convert(item, f"{name}[{key!r}]") for key, item in value.items()}
        else:
            bound.arguments[name] = convert(value, name)
    return bound.args, bound.kwargs


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    signature: inspect.Signature
    converters: Mapping[str, Converter]


@lru_cache(maxsize=1024)
def _plan(function: Callable[..., Any]) -> _Plan | None:
    """What there is to convert, or None if nothing."""
    hints = type_hints(function)
    if not hints:
        return None
    signature = inspect.signature(function)
    found = {name: _converter(hints[name]) for name in signature.parameters if name in hints}
    converters = {name: convert for name, convert in found.items() if convert is not None}
    return _Plan(signature, converters) if converters else None


def type_hints(item: Any) -> dict[str, Any]:
    """The annotations of a function or class; those that cannot be resolved are left out."""
    try:
        return typing.get_type_hints(item, include_extras=True)
    except Exception:  # noqa: BLE001 - evaluating an annotation may raise anything
        # A name that exists for type checkers only must not make the function unusable.
        return {name: hint for name, hint in getattr(item, "__annotations__", {}).items() if not isinstance(hint, str)}


def _converter(annotation: Any) -> Converter | None:
    """How to make a value fit `annotation`; None if nothing is to be done."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return _class_converter(annotation)
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _converter(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _union_converter(arguments)
    if origin in _ITEM_ORIGINS and arguments:
        return _items_converter(arguments[0])
    if origin is tuple and arguments:
        return _tuple_converter(arguments)
    if origin in _MAPPING_ORIGINS and len(arguments) == 2:
        return _mapping_converter(*arguments)
    target = getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
    return _converter(target) if target is not None else None


def _class_converter(cls: type) -> Converter | None:
    if _is_model(cls):
        return _model_converter(cls)
    if issubclass(cls, enum.Enum):
        return _enum_converter(cls)
    if cls is uuid.UUID:
        return _uuid
    if dataclasses.is_dataclass(cls):
        return _dataclass_converter(cls)
    return None


def _is_model(cls: type) -> bool:
    return callable(getattr(cls, "model_validate", None)) and callable(getattr(cls, "model_dump", None))


def _model_converter(cls: Any) -> Converter:
    def convert(value: Any, path: str) -> Any:
        if isinstance(value, cls):
            return value
        try:
            return cls.model_validate(value)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    return convert


def _enum_converter(cls: type[enum.Enum]) -> Converter:
    def convert(value: Any, path: str) -> Any:
        try:
            return cls(value)
        except ValueError:
            known = ", ".join(repr(member.value) for member in cls)
            raise ValueError(f"{path}: {value!r} is not a value of {cls.__qualname__}; those are {known}") from None

    return convert


def _uuid(value: Any, path: str) -> Any:
    if isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{path}: {value!r} is not a UUID") from None


def _dataclass_converter(cls: Any) -> Converter:
    converters: dict[str, Converter] = {}
    is_planned = False

    def convert(value: Any, path: str) -> Any:
        nonlocal is_planned
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise TypeError(f"{path}: {cls.__qualname__} is made of a dict of its fields, not of {value!r:.100}")
        if not is_planned:
            # At the first use, not when the function is looked at: a dataclass may refer to itself.
            hints = type_hints(cls)
            for field in dataclasses.fields(cls):
                field_converter = _converter(hints.get(field.name))
                if field_converter is not None:
                    converters[field.name] = field_converter
            is_planned = True
        values = {
            key: converters[key](item, f"{path}.{key}") if key in converters else item for key, item in value.items()
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise TypeError(f"{path}: {error}") from error

    return convert


def _items_converter(item_annotation: Any) -> Converter | None:
    convert_item = _converter(item_annotation)
    if convert_item is None:
        return None

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, list | tuple | set | frozenset):
            return value
        return type(value)(convert_item(item, f"{path}[{index}]") for index, item in enumerate(value))

    return convert


def _tuple_converter(arguments: tuple[Any, ...]) -> Converter | None:
    if len(arguments) == 2 and arguments[1] is ...:
        return _items_converter(arguments[0])
    converters = [_converter(argument) for argument in arguments]
    if not any(converters):
        return None

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(converters):
            return value
        return tuple(
            item if convert_item is None else convert_item(item, f"{path}[{index}]")
            for index, (item, convert_item) in enumerate(zip(value, converters, strict=True))
        )

    return convert


def _mapping_converter(key_annotation: Any, item_annotation: Any) -> Converter | None:
    convert_key = _converter(key_annotation) or _keep
    convert_item = _converter(item_annotation) or _keep
    if convert_key is _keep and convert_item is _keep:
        return None

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            convert_key(key, f"a key of {path}"): convert_item(item, f"{path}[{key!r}]") for key, item in value.items()
        }

    return convert


def _union_converter(members: tuple[Any, ...]) -> Converter | None:
    converters = [found for member in members if (found := _converter(member)) is not None]
    if not converters:
        return None
    kept = tuple(
        member for member in members if isinstance(member, type) and _converter(member) is None
    )  # None is among them as NoneType

    def convert(value: Any, path: str) -> Any:
        if isinstance(value, kept):
            return value
        problems = []
        for convert_member in converters:
            try:
                return convert_member(value, path)
            except (TypeError, ValueError) as error:
                problems.append(str(error))
        raise TypeError("; ".join(problems))

    return convert


def _keep(value: Any, _path: str) -> Any:
    return value

r"""JSON that keeps what Python and Monty keep: the one text form of every value in the log and on the wire.

JSON's own types stay as they are. Everything else is an object with one key that begins with `$`:

    b"\x00\xff"          {"$bytes":"AP8="}
    (1, 2)               {"$tuple":[1,2]}
    {1: "a"}             {"$dict":[[1,"a"]]}
    2**64                {"$int":"0x10000000000000000"}
    Decimal("1.10")      {"$decimal":"1.10"}

Instances of subclasses become the plain type, as they do in Monty: `IntEnum` an int, `defaultdict` a dict, a named tuple
a tuple. An exception is kept as its nearest built-in type and its text. Standard library only: remote machines use this
module.
"""

from __future__ import annotations

import base64
import builtins
import datetime as dt
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import PurePath, PurePosixPath
from types import EllipsisType, NotImplementedType
from typing import Any

from durable_monty.errors import DecodeError, EncodeError, PayloadUnreadable

MAX_DEPTH = 200
"""Most containers inside each other."""

_MAX_EXACT_INT = 2**53
_MAX_PATH_CHARACTERS = 1000
_PLAIN = frozenset({str, bool, type(None)})
_EXCEPTIONS: dict[str, type[BaseException]] = {
    name: value
    for name, value in vars(builtins).items()
    # The groups need a list of exceptions besides a text, and the errors of encodings need what was encoded.
    if isinstance(value, type)
    and issubclass(value, BaseException)
    and not name.endswith("ExceptionGroup")
    and name not in ("UnicodeDecodeError", "UnicodeEncodeError", "UnicodeTranslateError")
}
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


class Unreadable(str):
    """A stored text that could not be decrypted, as it is stored; reading it says why.

    Attributes:
        reason: What was being read, what was found, and what to do.
    """

    reason: str

    def __new__(cls, text: str, reason: str) -> Unreadable:
        """The text, with the reason."""
        made = super().__new__(cls, text)
        made.reason = reason
        return made


def check_readable(text: str) -> None:
    """Make sure that a stored text can be used as it is.

    Raises:
        PayloadUnreadable: It is encrypted in the database, and could not be decrypted.
    """
    if isinstance(text, Unreadable):
        raise PayloadUnreadable(text.reason)


class _Unencodable(Exception):
    """Why a value cannot be carried, and the path to it, collected from the inside outwards."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.steps: list[str] = []
        super().__init__(reason)


def dumps(value: Any, *, path: str = "value") -> str:
    """The text of a value.

    Args:
        path: What an error calls the value itself.

    Raises:
        EncodeError: Something in it cannot be carried; the message names the path to it, such as
            `value['items'][2]`.
    """
    try:
        text = _encode(_tree(value, 0))
        if not text.isascii():
            text.encode()
    except _Unencodable as error:
        where = path + "".join(reversed(error.steps))
        if len(where) > _MAX_PATH_CHARACTERS:
            where = f"{where[: _MAX_PATH_CHARACTERS // 2]} ... {where[-_MAX_PATH_CHARACTERS // 2 :]}"
        raise EncodeError(f"encoding {where}: {error.reason}") from None
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"encoding {path}: it holds text with a lone surrogate ({error.object[error.start]!r}), which is not valid "
            "Unicode; pass such text as bytes"
        ) from None
    return text


def loads(text: str | bytes) -> Any:
    """The value that `dumps` wrote. Runs no code, whatever the text says.

    Raises:
        DecodeError: The text is not JSON, or has a tag that the codec does not know or with a wrong payload.
        PayloadUnreadable: It is encrypted in the database, and could not be decrypted.
    """
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError("decoding a value: it is nested too deeply for this process") from None
    except ValueError as error:
        if isinstance(text, str):
            check_readable(text)
        raise DecodeError(f"decoding a value: {error}; was it written by something else?") from error


def _tree(value: Any, depth: int) -> Any:
    """The value as what `json` writes without loss."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return value if -_MAX_EXACT_INT <= value <= _MAX_EXACT_INT else {"$int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if depth >= MAX_DEPTH:
        raise _Unencodable(f"it is nested more than {MAX_DEPTH} levels deep, or contains itself")
    if kind is list:
        return _items(value, depth)
    if kind is dict:
        return _dict(value, depth)
    encode = _ENCODERS.get(kind)
    return encode(value, depth) if encode is not None else _subclass(value, depth)


def _items(value: Any, depth: int) -> list[Any]:
    items = []
    for item in value:
        try:
            items.append(item if type(item) in _PLAIN else _tree(item, depth + 1))
        except _Unencodable as error:
            error.steps.append(f"[{len(items)}]")
            raise
    return items


def _dict(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    tree = {}
    is_plain = True
    for key, item in value.items():
        if type(key) is not str or key[:1] == "$":
            is_plain = False
        try:
            tree[key] = item if type(item) in _PLAIN else _tree(item, depth + 1)
        except _Unencodable as error:
            error.steps.append(f"[{_shown(key)}]")
            raise
    if is_plain:
        return tree
    pairs = []
    for key, item in tree.items():
        try:
            pairs.append([_tree(key, depth + 1), item])
        except _Unencodable as error:
            error.reason = f"the key {_shown(key)}: {error.reason}"
            raise
    return {"$dict": pairs}


def _shown(key: Any) -> str:
    try:
        return f"{key!r:.80}"
    except Exception:  # noqa: BLE001 - a number with too many digits, or `__repr__` is the user's
        return f"<{type(key).__name__}>"


def _set(value: Any, depth: int) -> list[Any]:
    # Sorted, so that equal sets have equal texts in every process.
    return sorted(_items(value, depth), key=_encode)


def _datetime(value: dt.datetime, depth: int) -> Any:
    zone = value.tzinfo
    if not value.fold and (zone is None or (type(zone) is dt.timezone and not _is_named(zone))):
        return {"$datetime": value.isoformat()}
    return {"$datetime": [value.replace(tzinfo=None, fold=0).isoformat(), _zone(zone, depth), value.fold]}


def _time(value: dt.time, depth: int) -> Any:
    naive = value.replace(tzinfo=None, fold=0).isoformat()
    if value.tzinfo is None and not value.fold:
        return {"$time": naive}
    return {"$time": [naive, _zone(value.tzinfo, depth), value.fold]}


def _zone(zone: dt.tzinfo | None, depth: int) -> Any:
    if zone is None:
        return None
    if type(zone) is dt.timezone:
        return _tree(zone, depth)
    key = getattr(zone, "key", None)
    if isinstance(key, str):
        return {"$zoneinfo": key}
    raise _Unencodable(f"its time zone is {zone!r}; use datetime.timezone or zoneinfo.ZoneInfo")


def _is_named(zone: dt.timezone) -> bool:
    """Whether it has a name of its own, which its offset does not tell."""
    return zone.tzname(None) != dt.timezone(zone.utcoffset(None)).tzname(None)


def _timezone(value: dt.timezone) -> Any:
    name = value.tzname(None) if _is_named(value) else None
    return {"$timezone": [value.utcoffset(None).total_seconds(), name]}


def _exception(value: BaseException, _depth: int) -> Any:
    kind = type(value)
    base = next(base.__name__ for base in kind.__mro__ if _EXCEPTIONS.get(base.__name__) is base)
    text = value.args[0] if len(value.args) == 1 and isinstance(value.args[0], str) else str(value)
    if base != kind.__name__:
        text = f"{kind.__name__}: {text}" if text else kind.__name__
    return {"$exception": [base, text]}


_ENCODERS: dict[type, Callable[[Any, int], Any]] = {
    tuple: lambda value, depth: {"$tuple": _items(value, depth)},
    set: lambda value, depth: {"$set": _set(value, depth)},
    frozenset: lambda value, depth: {"$frozenset": _set(value, depth)},
    bytes: lambda value, depth: {"$bytes": base64.b64encode(value).decode()},
    complex: lambda value, depth: {"$complex": [_tree(value.real, depth), _tree(value.imag, depth)]},
    Decimal: lambda value, depth: {"$decimal": str(value)},
    dt.datetime: _datetime,
    dt.date: lambda value, depth: {"$date": value.isoformat()},
    dt.time: _time,
    dt.timedelta: lambda value, depth: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    dt.timezone: lambda value, depth: _timezone(value),
    EllipsisType: lambda value, depth: {"$constant": "Ellipsis"},
    NotImplementedType: lambda value, depth: {"$constant": "NotImplemented"},
}

_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, lambda value: str.__str__(value)),
    (int, lambda value: int(value)),
    (float, lambda value: float(value)),
    (bytes, lambda value: bytes(value)),
    (dict, lambda value: dict(value)),
    (list, lambda value: list(value)),
    (tuple, lambda value: tuple(value)),
    (set, lambda value: set(value)),
    (frozenset, lambda value: frozenset(value)),
    (Decimal, lambda value: Decimal(value)),
)


def _subclass(value: Any, depth: int) -> Any:
    """Types that are not carried by themselves: what they derive from, or an error."""
    for base, convert in _BASES:
        if isinstance(value, base):
            return _tree(convert(value), depth)
    if isinstance(value, PurePath):
        return {"$path": value.as_posix()}
    if isinstance(value, BaseException):
        return _exception(value, depth)
    if isinstance(value, dt.tzinfo):
        return _zone(value, depth)
    kind = type(value)
    raise _Unencodable(
        f"a value of type {kind.__module__}.{kind.__qualname__} cannot be carried; "
        "use JSON's types, bytes, tuple, set, datetime, Decimal, or a pydantic model, dataclass, Enum or UUID that "
        "the function's annotations name"
    )


def _read_datetime(payload: Any) -> dt.datetime:
    if isinstance(payload, str):
        return dt.datetime.fromisoformat(payload)
    text, zone, fold = payload
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _read_time(payload: Any) -> dt.time:
    if isinstance(payload, str):
        return dt.time.fromisoformat(payload)
    text, zone, fold = payload
    return dt.time.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _read_timezone(payload: Any) -> dt.timezone:
    offset = dt.timedelta(seconds=payload[0])
    return dt.timezone(offset) if payload[1] is None else dt.timezone(offset, payload[1])


def _read_zone(payload: str) -> dt.tzinfo:
    # Reads the time zone database: only where a value asks for it.
    from zoneinfo import ZoneInfo

    return ZoneInfo(payload)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$bytes": lambda payload: base64.b64decode(payload, validate=True),
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
    "$int": lambda payload: int(payload, 16),
    "$float": float,
    "$complex": lambda payload: complex(*payload),
    "$decimal": Decimal,
    "$datetime": _read_datetime,
    "$date": dt.date.fromisoformat,
    "$time": _read_time,
    "$timedelta": lambda payload: dt.timedelta(*payload),
    "$timezone": _read_timezone,
    "$zoneinfo": _read_zone,
    "$path": PurePosixPath,
    "$exception": lambda payload: _EXCEPTIONS[payload[0]](payload[1]),
    "$constant": lambda payload: {"Ellipsis": ..., "NotImplemented": NotImplemented}[payload],
}


def _from_object(value: dict[str, Any]) -> Any:
    if len(value) != 1:
        return value
    ((tag, payload),) = value.items()
    if tag[:1] != "$":
        return value
    read = _DECODERS.get(tag)
    if read is None:
        raise DecodeError(f"decoding a value: the tag {tag!r} is unknown; was it written by a newer durable-monty?")
    try:
        return read(payload)
    except Exception as error:
        raise DecodeError(f"decoding a value: {tag!r} cannot be read from {payload!r:.100}: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise DecodeError(f"decoding a value: {name} is not JSON")


_DECODER = json.JSONDecoder(object_hook=_from_object, parse_constant=_refuse_constant)

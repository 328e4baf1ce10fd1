"""The codec carries what it says it does, and refuses everything else by its documented errors only."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_monty import codec, convert
from durable_monty.errors import DecodeError, EncodeError
from fuzz.targets import TARGETS

_EXCEPTIONS = [
    kind for kind in vars(__import__("builtins")).values() if isinstance(kind, type) and issubclass(kind, BaseException)
]
zones = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.builds(
        dt.timezone,
        st.timedeltas(min_value=dt.timedelta(hours=-23), max_value=dt.timedelta(hours=23)),
        st.text(st.characters(codec="utf-8"), max_size=5),
    ),
    st.timezones(),
)
hashable = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=-(2**5000), max_value=2**5000),
        st.floats(),
        st.text(st.characters(codec="utf-8")),
        st.binary(),
        st.complex_numbers(),
        st.decimals().filter(lambda number: not number.is_snan()),  # it has no hash
        st.just(decimal.Decimal("-0E-30")),
        st.dates(),
        st.datetimes(timezones=zones),
        st.datetimes(allow_imaginary=True, timezones=st.timezones()).map(lambda at: at.replace(fold=1)),
        st.times(timezones=st.one_of(st.none(), st.just(dt.UTC))),
        st.timedeltas(),
        zones.filter(lambda zone: type(zone) is dt.timezone),
        st.just(...),
        st.just(NotImplemented),
        st.lists(st.sampled_from(["a", "..", "b c", "é"]), max_size=4).map(lambda parts: PurePosixPath(*parts)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)),
    max_leaves=6,
)
values = st.recursive(
    hashable,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(hashable, inner, max_size=4),
        st.dictionaries(st.sampled_from(["$bytes", "$dict", "$x", "a"]), inner, max_size=2),
        st.sets(hashable, max_size=4),
    ),
    max_leaves=20,
)


def form(value):
    """A text that tells everything apart which the codec keeps apart; the order of a set does not count."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{sorted(form(item) for item in value)}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{','.join(form(item) for item in value)}]"
    if isinstance(value, dict):
        return f"dict{[(form(key), form(item)) for key, item in value.items()]}"
    if isinstance(value, int):
        return f"{type(value).__name__}{value:x}"
    if isinstance(value, dt.datetime | dt.time):
        return f"{value!r}{value.fold}"
    return f"{type(value).__name__}{value!r}"


@settings(max_examples=100, deadline=None)
@given(values)
def test_every_value_that_it_claims_to_carry_comes_back(value):
    text = codec.dumps(value)
    assert form(codec.loads(text)) == form(value)
    assert codec.dumps(codec.loads(text)) == text, "and is written in the same way again"
    json.loads(text)


@given(st.sampled_from(_EXCEPTIONS), st.text(st.characters(codec="utf-8"), max_size=20))
def test_every_builtin_exception_comes_back_as_the_nearest_that_takes_a_text(kind, text):
    try:
        error = kind(text)
    except TypeError:
        error = kind("utf-8", b"\xff", 0, 1, text) if issubclass(kind, UnicodeDecodeError) else None
        if issubclass(kind, UnicodeEncodeError):
            error = kind("utf-8", "x", 0, 1, text)
        elif issubclass(kind, UnicodeTranslateError):
            error = kind("x", 0, 1, text)
        elif error is None:
            error = kind(text, [ValueError(text)])
    read = codec.loads(codec.dumps(error))
    assert isinstance(read, BaseException)
    assert isinstance(error, type(read))
    assert text in read.args[0]


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass(frozen=True)
class Line:
    item: str
    count: int
    colour: Colour
    ids: tuple[uuid.UUID, ...] = ()


@dataclasses.dataclass
class Order:
    lines: list[Line]
    by_level: dict[Level, Line]
    note: Line | None = None


lines = st.builds(
    Line,
    st.text(st.characters(codec="utf-8")),
    st.integers(),
    st.sampled_from(Colour),
    st.lists(st.uuids(), max_size=2).map(tuple),
)
orders = st.builds(
    Order, st.lists(lines, max_size=3), st.dictionaries(st.just(Level.HIGH), lines), st.one_of(st.none(), lines)
)


@settings(deadline=None)
@given(orders, st.uuids(), st.sampled_from(Colour))
def test_what_annotations_name_comes_back(order, id_, colour):
    """As a call carries it: plain on the wire, made anew by the function's annotations."""

    def function(order: Order, id_: uuid.UUID, *, colour: Colour) -> None: ...

    text = codec.dumps(convert.plain([[order, id_], {"colour": colour}]))
    args, kwargs = codec.loads(text)
    bound_args, bound_kwargs = convert.bind(function, args, kwargs)
    assert (*bound_args, bound_kwargs["colour"]) == (order, id_, colour)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.sampled_from(["0xff", "NaN", "2026-02-30", "24:00", "../../etc/passwd", "Europe/Nowhere", "9" * 5000]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
        st.builds(lambda tag, payload: {tag: payload}, st.sampled_from(sorted(codec._DECODERS)), inner),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_any_json_is_read_or_is_a_decode_error(tree):
    TARGETS["codec"](json.dumps(tree).encode(errors="surrogatepass"))


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode(errors="surrogatepass"))))
def test_any_bytes_are_read_or_are_a_decode_error(data):
    for target in ("codec", "envelope"):
        TARGETS[target](data)


@given(st.text())
def test_any_text_is_read_or_is_a_decode_error(text):
    """Also one with surrogates, which a file of another program may have let in."""
    try:
        codec.loads(text)
    except DecodeError:
        return
    json.loads(text)


def test_what_is_nested_beyond_reason_is_refused_both_ways():
    for opened, closed in (("[", "]"), ('{"a":', "}"), ('{"$tuple":[', "]}")):
        text = opened * 100_000 + "1" + closed * 100_000
        with pytest.raises(DecodeError, match="nested too deeply"):
            codec.loads(text)
    deep: object = 1
    for _ in range(100_000):
        deep = (deep,)
    with pytest.raises(EncodeError, match="200 levels") as raised:
        codec.dumps(deep)
    assert len(str(raised.value)) < 2000, "the path to what is wrong is cut short"


def test_a_number_of_any_size_costs_no_more_than_its_digits():
    """Decimal digits take time that grows with their square, hexadecimal ones do not."""
    number = 7**300_000
    assert codec.loads(codec.dumps({"n": [number, -number]})) == {"n": [number, -number]}
    assert math.isinf(codec.loads(codec.dumps(-math.inf)))


def test_an_error_about_a_large_thing_is_short():
    for key in (b"k" * 10**7, 10**5000, (10**5000, "a"), "x" * 10**6):
        with pytest.raises(EncodeError) as raised:
            codec.dumps({key: [object()]})
        assert len(str(raised.value)) < 2000


@pytest.mark.parametrize(
    "tree", [{"$int": "0x" + "f" * 4000}, [{"$int": "-0x1" + "0" * 4000}]], ids=["alone", "within"]
)
def test_a_number_with_more_digits_than_python_writes_comes_back(tree):
    TARGETS["codec"](json.dumps(tree).encode())

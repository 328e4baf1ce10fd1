"""The text form of values: what arrives is what was sent, and what cannot be sent is named."""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections import OrderedDict, defaultdict, namedtuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_monty import codec
from durable_monty.errors import DecodeError, EncodeError

zones = st.sampled_from(
    [None, dt.UTC, dt.timezone(dt.timedelta(hours=-3, minutes=-30), "X"), ZoneInfo("Europe/Berlin")]
)
keys = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.dates(), st.tuples(st.integers()))
leaves = st.one_of(
    keys,
    st.integers(min_value=2**64),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.datetimes(timezones=zones),
    st.times(),
    st.timedeltas(),
    st.frozensets(st.integers()),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(keys, inner), st.sets(keys), st.frozensets(keys)
    ),
    max_leaves=20,
)


def same(one, other):
    """Equality that tells types, the sign of zero and the fold of a time apart."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other) if isinstance(one, float | complex) else one == other


@settings(max_examples=400, deadline=None)
@given(values)
def test_every_value_comes_back_as_it_was(value):
    assert same(codec.loads(codec.dumps(value)), value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 1e308, 5e-324])
def test_floats_at_the_edges_come_back(value):
    assert repr(codec.loads(codec.dumps(value))) == repr(value)


def test_nan_comes_back():
    assert math.isnan(codec.loads(codec.dumps(math.nan)))


@given(st.text().map(lambda name: f"${name}"), st.integers())
def test_a_dictionary_that_looks_like_a_tag_is_not_one(name, value):
    assert codec.loads(codec.dumps({name: value})) == {name: value}


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 1),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (namedtuple("Point", "x y")(1, 2), (1, 2)),
    ],
)
def test_instances_of_subclasses_become_the_plain_type(value, plain):
    read = codec.loads(codec.dumps(value))
    assert (type(read), read) == (type(plain), plain)


def test_an_exception_is_kept_as_its_nearest_builtin_type():
    class OutOfStock(LookupError):
        pass

    read = codec.loads(codec.dumps(OutOfStock("no apples")))
    assert (type(read), str(read)) == (LookupError, "OutOfStock: no apples")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"lines": [1, 2, object()]}, "args[0]['lines'][2]"),
        ([(1, {"a": lambda: 1})], "args[0][0][1]['a']"),
        ({"a": {"b": open}}, "args[0]['a']['b']"),
    ],
)
def test_a_value_that_cannot_be_carried_is_named_by_its_path(value, path):
    with pytest.raises(EncodeError) as raised:
        codec.dumps(value, path="args[0]")
    assert path in str(raised.value)


def test_a_value_that_contains_itself_is_an_error():
    value: list = []
    value.append(value)
    with pytest.raises(EncodeError):
        codec.dumps(value)


@pytest.mark.parametrize("text", ["", "{", '{"$bytes":"###"}', '{"$nosuchtag":1}', '{"$date":"yesterday"}'])
def test_a_text_that_is_not_ours_is_a_decode_error(text):
    with pytest.raises(DecodeError):
        codec.loads(text)

"""How states are stored: what was ever written can be read."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_monty import packing

DICTIONARY = Path(packing.__file__).with_name("dictionary-1.bin")


@given(st.binary(max_size=100_000))
def test_what_was_packed_comes_back(state):
    assert packing.unpack(packing.pack(state)) == state


def test_what_earlier_versions_wrote_comes_back():
    state = bytes(range(256)) * 20
    assert packing.unpack(b"\x00" + state) == state
    assert packing.unpack(b"\x01" + zlib.compress(state, 1)) == state


def test_the_dictionary_is_the_one_that_was_released():
    """What was compressed with it cannot be read with another."""
    found = hashlib.sha256(DICTIONARY.read_bytes()).hexdigest()
    assert found == "c850a408643e967c72249b2d11466317c3ee5a05731924bb4f580a82ae90e50b"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (packing.pack(b"state" * 100)[:-5], "cut short"),
        (b"\x01" + zlib.compress(b"state" * 100)[:-5], "cut short"),
        (b"\x02 no zlib stream", "incorrect header check"),
        (b"\x01 no zlib stream", "incorrect header check"),
        (b"\x07 of another kind", "no version is known to write"),
        (b"", "no version is known to write"),
    ],
)
def test_what_is_damaged_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        packing.unpack(data)

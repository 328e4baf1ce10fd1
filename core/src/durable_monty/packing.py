"""States of the sandbox as they are stored: compressed, with what most of them have in common known beforehand."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zlib import _Compress

# The first byte says how the rest is written. What was ever written can be read for ever.
_RAW = b"\x00"
_ZLIB = b"\x01"
_WITH_DICTIONARY_1 = b"\x02"
# Small states are the rule, and setting up zlib's usual tables takes several times as long as compressing one. The window
# holds the dictionary, see `tests/fixtures/make_dictionary.py`.
_WINDOW_BITS = 14
_MEMORY_LEVEL = 6


def pack(state: bytes) -> bytes:
    """The stored form: the state of a small workflow, 2.2 to 6 kB, in 0.3 to 0.9 kB."""
    compressor = _primed().copy()
    return _WITH_DICTIONARY_1 + compressor.compress(state) + compressor.flush()


def unpack(data: bytes) -> bytes:
    """The state that was packed.

    Raises:
        ValueError: It was not written by `pack`, or is cut short.
    """
    kind = data[:1]
    if kind == _RAW:
        return data[1:]
    if kind not in (_ZLIB, _WITH_DICTIONARY_1):
        raise ValueError(f"it begins with {kind!r}, which no version is known to write")
    decompressor = zlib.decompressobj() if kind == _ZLIB else zlib.decompressobj(zdict=_dictionary())
    try:
        state = decompressor.decompress(data[1:])
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not decompressor.eof:
        raise ValueError("it is cut short")
    return state


@cache
def _dictionary() -> bytes:
    return Path(__file__).with_name("dictionary-1.bin").read_bytes()


@cache
def _primed() -> _Compress:
    """A compressor that has read the dictionary: copying it takes a tenth of the time of reading that again."""
    return zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, _dictionary())

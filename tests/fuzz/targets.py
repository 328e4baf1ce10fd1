"""What is fuzzed: each target takes bytes and raises only if something is wrong.

They need no fuzzer: the ordinary tests replay on them what the fuzzer has found.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from durable_monty import codec, remote
from durable_monty.cli.output import visible
from durable_monty.config import load, to_display
from durable_monty.envelope import decode_envelope, decode_heartbeat, decode_reply, encode_heartbeat, encode_value
from durable_monty.errors import ConfigError, DecodeError, EncodeError, SignatureMismatch

KEY = b"a key that the fuzzer does not know"
_TAGS = sorted(codec._DECODERS)
_LITERALS = (
    *("0xff", "-0x1", "inf", "nan", "-0.0", "1e999", "NaN123", "sNaN", "1E+999999999999", "2026-02-29", "2026-03-01"),
    *(
        "2026-03-01T02:30:00",
        "2026-03-01T02:30:00+23:59:59.5",
        "02:30:00",
        "24:00",
        "0001-01-01",
        "9999-12-31T23:59:59",
    ),
    *("AP8=", "Europe/Berlin", "../../etc/passwd", "/etc/passwd", "", "Ellipsis", "ValueError", "BaseExceptionGroup"),
    *("UnicodeDecodeError", "KeyboardInterrupt", "OSError", "\ud800", "\0", "__class__", "9" * 5000),
)
_FOLDER = tempfile.TemporaryDirectory(prefix="durable-monty-fuzz-")


def fuzz_codec(data: bytes) -> None:
    """Whatever is read is either refused by `DecodeError`, or is a value that comes back as it was."""
    try:
        value = codec.loads(data)
    except DecodeError:
        return
    try:
        text = codec.dumps(value)
    except EncodeError:
        # JSON can be nested more deeply than the codec writes, and can hold surrogates.
        return
    again = codec.loads(text)
    assert _shows_the_same(again, value) or isinstance(value, set | frozenset | dict | list | tuple)
    assert codec.dumps(again) == text


def _shows_the_same(one: object, other: object) -> bool:
    try:
        return repr(one) == repr(other)
    except ValueError:
        # A number with more digits than Python writes, somewhere in it; the texts, which have it in base 16, are compared.
        return type(one) is type(other)


def fuzz_values(data: bytes) -> None:
    """As `fuzz_codec`, for JSON that is put together of the codec's own tags, which a mutation rarely hits upon."""
    fuzz_codec(json.dumps(_Tree(data).value(6)).encode())


class _Tree:
    """Bytes as a JSON tree: each is a decision."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self, depth: int) -> object:
        kind = self._byte() % (9 if depth else 6)
        if kind < 6:
            return (None, True, self._number(), self._number() / 8, self._text(), self._literal())[kind]
        if kind == 6:
            return {_TAGS[self._byte() % len(_TAGS)]: self.value(depth - 1)}
        items = [self.value(depth - 1) for _ in range(self._byte() % 5)]
        return items if kind == 7 else {self._text(): item for item in items}

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def _number(self) -> int:
        number = self._byte() - 128
        return number << self._byte() if self._byte() % 4 == 0 else number

    def _text(self) -> str:
        size = self._byte() % 12
        self._at += size
        return self._data[self._at - size : self._at].decode("latin-1")

    def _literal(self) -> str:
        return _LITERALS[self._byte() % len(_LITERALS)]


def fuzz_envelope(data: bytes) -> None:
    """Nothing but the documented errors; with a key nothing that was not signed with it; and an answer, always."""
    refused = (DecodeError, SignatureMismatch)
    for decode in (decode_envelope, decode_reply, decode_heartbeat):
        with contextlib.suppress(*refused):
            decode(data, None)
        try:
            decode(data, KEY)
        except refused:
            continue
        raise AssertionError(f"{decode.__name__} took what was not signed")
    with contextlib.suppress(*refused):
        reply = decode_reply(data, None)
        if reply.failure is None:
            assert reply.value_text is not None
            value = codec.loads(reply.value_text)
            whole = decode_reply(encode_value(reply.job_id, reply.value_text, None), None)
            assert repr(codec.loads(whole.value_text or "")) == repr(value)
    with contextlib.suppress(*refused):
        job_id, progress = decode_heartbeat(data, None)
        assert decode_heartbeat(encode_heartbeat(job_id, progress, None), None) == (job_id, progress)
    answer = remote.run(data)
    assert decode_reply(answer, None).failure is not None


def fuzz_config(data: bytes) -> None:
    """A file is read, or refused by `ConfigError`; what is read can be shown, and neither has a terminal's commands."""
    name = "pyproject.toml" if data[:1] == b"p" else "durable-monty.toml"
    file = Path(_FOLDER.name) / name
    file.write_bytes(data[1:])
    try:
        chosen = load(file, cwd=file.parent, environ={})
    except ConfigError as error:
        said = str(error)
        assert str(file) in said or "executor" in said or "observe" in said or "url" in said
    else:
        said = f"{chosen!r}{to_display(chosen)}"
    io.StringIO().write(visible(said))
    visible(said).encode()


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "codec": fuzz_codec,
    "values": fuzz_values,
    "envelope": fuzz_envelope,
    "config": fuzz_config,
}

"""What travels to a remote machine and back: JSON, signed if there is a key.

    {"mac":"<64 hexadecimal digits>","body":{...}}      with a signing key
    {"body":{...}}                                      without

The signature is the HMAC-SHA256 of the exact bytes of the body, which stand at a fixed place, so that nothing is parsed
before it is known to be ours. Standard library only.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from durable_monty import codec
from durable_monty.errors import DecodeError, EncodeError, SignatureMismatch
from durable_monty.models import Failure
from durable_monty.signing import is_signed, sign

FORMAT = 1
_OPEN = b'{"body":'
_SIGNED_OPEN = b'{"mac":"'
# As `encode_value` writes it, for ids that need no escapes.
_OUR_VALUE = re.compile(rb'\{"v":%d,"job_id":"([A-Za-z0-9_-]*)","value":' % FORMAT)
_BODY_AT = len(_SIGNED_OPEN) + 64 + len(b'","body":')


@dataclass(frozen=True, slots=True)
class Envelope:
    """A call as a remote machine reads it.

    Attributes:
        progress: What the last heartbeat of the attempt before reported.
        is_watched: Whether the worker wants to know when it begins.
        trace_context: Where the call belongs in a trace, as the W3C header `traceparent` says it, or None.
    """

    job_id: str
    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    progress: Any = None
    is_watched: bool = False
    trace_context: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as the core reads it. `value_text` is None if there is a failure."""

    job_id: str
    value_text: str | None = None
    failure: Failure | None = None


def encode_envelope(
    job_id: str,
    function: str,
    arguments: str,
    key: bytes | None,
    *,
    progress: str | None = None,
    is_watched: bool = False,
    trace_context: str | None = None,
) -> bytes:
    """The envelope of one attempt.

    Args:
        arguments: The codec's text of `[args, kwargs]`.
        progress: The codec's text of what the last heartbeat reported.
        is_watched: Whether the remote side is to tell that it has begun.
        trace_context: As in `Envelope`; readers that do not know it ignore it.
    """
    head = json.dumps({"v": FORMAT, "job_id": job_id, "function": function}, separators=(",", ":"))
    if is_watched:
        head = f'{head[:-1]},"watched":true}}'
    if trace_context is not None:
        head = f'{head[:-1]},"trace":{json.dumps(trace_context)}}}'
    if progress is not None:
        head = f'{head[:-1]},"progress":{progress}}}'
    return _seal(f'{head[:-1]},"call":{arguments}}}'.encode(), key)


def decode_envelope(data: bytes | str, key: bytes | None) -> Envelope:
    """Read an envelope.

    Raises:
        SignatureMismatch: A key is configured here and the envelope is not signed with it.
        DecodeError: It is not an envelope of this version.
    """
    body = _parse(_unseal(data, key, "the envelope"), "the envelope")
    try:
        args, kwargs = body["call"]
        return Envelope(
            _text(body["job_id"], "the envelope"),
            _text(body["function"], "the envelope"),
            list(args),
            dict(kwargs),
            body.get("progress"),
            bool(body.get("watched")),
            None if body.get("trace") is None else str(body["trace"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(
            f"reading the envelope: it lacks or garbles {error}; was it written by something else?"
        ) from error


def encode_value(job_id: str, value_text: str, key: bytes | None) -> bytes:
    """The reply of a function that returned."""
    return _seal(f"{_value_head(job_id)}{value_text}}}".encode(), key)


def encode_failure(job_id: str, failure: Failure, key: bytes | None) -> bytes:
    """The reply of an attempt that failed."""
    fields = {
        "kind": failure.kind,
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
        "bases": list(failure.bases),
    }
    # Surrogates in a message or traceback are replaced: a failure must never fail to be reported.
    text = json.dumps({"v": FORMAT, "job_id": job_id, "failure": fields}, separators=(",", ":"), ensure_ascii=True)
    return _seal(text.encode(), key)


def encode_heartbeat(job_id: str, progress: str | None, key: bytes | None) -> bytes:
    """A sign of life; `progress` is the codec's text, or None if there is nothing new."""
    return _seal(f'{{"v":{FORMAT},"job_id":{json.dumps(job_id)},"progress":{progress or "null"}}}'.encode(), key)


def decode_heartbeat(data: bytes | str, key: bytes | None) -> tuple[str, str | None]:
    """The job id and the progress, as the codec's text, of a sign of life.

    Raises:
        SignatureMismatch: A key is configured here and it is not signed with it.
        DecodeError: It is not a sign of life of this version.
    """
    body = _parse(_unseal(data, key, "the heartbeat"), "the heartbeat")
    if not {"job_id", "progress"} <= body.keys():
        raise DecodeError(f"reading the heartbeat: it has {sorted(body)}; was it written by something else?")
    progress = body["progress"]
    return _text(body["job_id"], "the heartbeat"), None if progress is None else _encoded(progress, "the heartbeat")


def decode_reply(data: bytes | str, key: bytes | None) -> Reply:
    """Read a reply.

    Raises:
        SignatureMismatch: A key is configured here and the reply is not signed with it.
        DecodeError: It is not a reply of this version.
    """
    body_bytes = _unseal(data, key, "the reply")
    ours = _OUR_VALUE.match(body_bytes)
    if ours is not None and body_bytes.endswith(b"}"):
        # Ours are laid out so that the value's text can be cut out; it is a value, whoever wrote it.
        text = body_bytes[ours.end() : -1]
        with suppress(DecodeError):
            codec.loads(text)
            return Reply(ours[1].decode(), value_text=text.decode())
    body = _parse(body_bytes, "the reply")
    try:
        job_id = _text(body["job_id"], "the reply")
        if "failure" in body:
            fields = body["failure"]
            kind, *texts = (fields[name] for name in ("kind", "type", "message", "traceback"))
            bases = tuple(fields["bases"])
            if not all(isinstance(item, str) for item in (kind, *texts, *bases)):
                raise TypeError("what should be text")
            return Reply(job_id, failure=Failure(kind, texts[0], texts[1], texts[2], bases))
        value = body["value"]
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(
            f"reading the reply: it lacks or garbles {error}; was it written by something else?"
        ) from error
    return Reply(job_id, value_text=_encoded(value, "the reply"))


def _encoded(value: Any, what: str) -> str:
    """The codec's text of what was read.

    Raises:
        DecodeError: It can be read and not be written, as surrogates can.
    """
    try:
        return codec.dumps(value)
    except EncodeError as error:
        raise DecodeError(f"reading {what}: {error}") from error


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise DecodeError(
            f"reading {what}: it has {value!r:.60} where a text should be; was it written by something else?"
        )
    return value


def _value_head(job_id: str) -> str:
    return f'{{"v":{FORMAT},"job_id":{json.dumps(job_id)},"value":'


def _seal(body: bytes, key: bytes | None) -> bytes:
    if key is None:
        return _OPEN + body + b"}"
    mac = sign(key, body).hex().encode()
    return _SIGNED_OPEN + mac + b'","body":' + body + b"}"


def _unseal(data: bytes | str, key: bytes | None, what: str) -> bytes:
    """The body's bytes, after its signature was found right."""
    if isinstance(data, str):
        data = data.encode(errors="surrogatepass")
    if data.startswith(_SIGNED_OPEN):
        body = data[_BODY_AT:-1]
        mac = data[len(_SIGNED_OPEN) : len(_SIGNED_OPEN) + 64]
        if key is not None and not is_signed(key, body, _digest_of(mac)):
            raise SignatureMismatch(f"reading {what}: its signature does not fit; both sides need the same signing key")
        return body
    if key is not None:
        raise SignatureMismatch(
            f"reading {what}: it is not signed, but a signing key is configured here; configure it on both sides"
        )
    if not data.startswith(_OPEN):
        raise DecodeError(f"reading {what}: {data[:60]!r} is not how it begins; was it written by something else?")
    return data[len(_OPEN) : -1]


def _digest_of(mac: bytes) -> bytes:
    try:
        return bytes.fromhex(mac.decode("ascii"))
    except ValueError:
        return b""


def _parse(body: bytes, what: str) -> dict[str, Any]:
    parsed = codec.loads(body)
    if not isinstance(parsed, dict) or parsed.get("v") != FORMAT:
        found = parsed.get("v") if isinstance(parsed, dict) else parsed
        raise DecodeError(
            f"reading {what}: its format is {found!r:.60}, this version reads {FORMAT}; install the same version of "
            "durable-monty-core on both sides"
        )
    return parsed

"""What a Lambda function runs. Standard library and the remote side of the core; boto3 only where a value is in S3."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from durable_monty import codec, convert, functions, remote
from durable_monty.envelope import encode_failure
from durable_monty.errors import FunctionError, SignatureMismatch
from durable_monty.models import Failure
from durable_monty_lambda.events import MAX_ANSWER_BYTES, Pointer, size_bytes


class AttemptTimeout(BaseException):
    """Raised inside a function that runs longer than its `timeout_seconds`; no `except Exception` stops it."""


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda gives both
    """Run the call in `event`; the handler string of the Lambda function is `durable_monty_lambda.handler`.

    Understands three events: `{"envelope": ...}` of the executor gives `{"reply": ...}`, `{"probe": ...}` of its check
    tells what is installed, and `{"function_name": ..., "args": [...]}`, for callers without an envelope, gives
    `{"result": ...}`. All of them run registered functions only; where a signing key is set, envelopes run, signed ones.

    Raises:
        ValueError: The event is none of these.
        SignatureMismatch: The event names a function, and a signing key is set here.
        Exception: The event names a function, and that raised; or an envelope in S3 could not be read. An envelope's
            function never makes the handler raise: that is in the reply.
    """
    if "envelope" in event or "envelope_s3" in event:
        return _run(event)
    if "probe" in event:
        return probe(event["probe"] or {})
    if "function_name" in event:
        return _run_named(event)
    raise ValueError(
        f"handling an event with the keys {sorted(map(str, event))}: it has no 'envelope', 'probe' or 'function_name'; "
        "is this function invoked by something else than durable-monty?"
    )


def probe(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What this Lambda function has, for `durable-monty executors check`.

    Returns:
        `version` of the core, `python`, `is_signed`, and `missing`: by dotted path, why a function cannot run here.
    """
    from importlib.metadata import version

    missing = {}
    for path in wanted.get("functions", ()):
        try:
            functions.resolve(path)
        except FunctionError as error:
            missing[path] = str(error)
    return {
        "version": version("durable-monty-core"),
        "python": ".".join(map(str, sys.version_info[:3])),
        "is_signed": remote.signing_key() is not None,
        "missing": missing,
    }


def _run(event: Mapping[str, Any]) -> dict[str, Any]:
    pointer = Pointer.read(event.get("envelope_s3"))
    envelope = _get(pointer) if pointer is not None else event["envelope"]
    with _time_limit(event.get("timeout_seconds")):
        reply = remote.run(envelope)
    job_id = str(event.get("job_id", ""))
    if b'"AttemptTimeout"' in reply:
        reply = _timed_out(job_id, reply, event["timeout_seconds"])
    return _answer(job_id, reply, event)


def _run_named(event: Mapping[str, Any]) -> dict[str, Any]:
    if remote.signing_key() is not None:
        raise SignatureMismatch(
            f"running {event['function_name']!r}: this event cannot be signed, but a signing key is configured here; "
            f"send an envelope, or remove {remote.KEY_VARIABLE} from the function's environment"
        )
    function = functions.resolve(str(event["function_name"]))
    args, kwargs = convert.bind(
        function.__wrapped__,
        codec.loads(json.dumps(list(event.get("args") or ()))),
        codec.loads(json.dumps(dict(event.get("kwargs") or {}))),
    )
    value = function.__wrapped__(*args, **kwargs)
    if function.is_async:
        value = functions.run_to_end(value)
    return {"result": json.loads(codec.dumps(convert.plain(value), path="result"))}


def _answer(job_id: str, reply: bytes, event: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, or the address of the reply, or a reply that says that it is too large."""
    answer = {"reply": reply.decode()}
    limit = int(event.get("max_reply_bytes", MAX_ANSWER_BYTES))
    size = size_bytes(answer)
    if size <= limit:
        return answer
    pointer = Pointer.read(event.get("reply_to"))
    if pointer is not None:
        _put(pointer, reply)
        return {"reply_s3": pointer.to_dict()}
    message = (
        f"the reply takes {size} bytes, and beside its request Lambda and SQS carry {limit}; return a reference to the "
        "data, or set payload_bucket of the executor"
    )
    failure = Failure("undecodable", "ResultTooLarge", message)
    return {"reply": encode_failure(job_id, failure, remote.signing_key()).decode()}


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupt the function after so long. Lambda calls handlers in the main thread, where signals arrive."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise AttemptTimeout

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)


def _timed_out(job_id: str, reply: bytes, seconds: float) -> bytes:
    """The reply of a function that was interrupted."""
    failure = remote.read_reply(reply).failure
    if failure is None or failure.type != AttemptTimeout.__name__:
        return reply
    timeout = Failure("timeout", "TimeoutError", f"it ran longer than its {seconds:g} s", failure.traceback)
    return encode_failure(job_id, timeout, remote.signing_key())


def _get(pointer: Pointer) -> bytes:
    data: bytes = _s3().get_object(Bucket=pointer.bucket, Key=pointer.key)["Body"].read()
    return data


def _put(pointer: Pointer, data: bytes) -> None:
    _s3().put_object(Bucket=pointer.bucket, Key=pointer.key, Body=data)


def _s3() -> Any:
    # Part of Lambda's own Python runtimes; where nothing is in S3 it is never imported.
    import boto3

    return boto3.client("s3")

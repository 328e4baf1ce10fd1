"""What Modal's exceptions mean to us."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import grpclib
from grpclib.exceptions import StreamTerminatedError
from modal import exception

from durable_monty.models import Failure, Outcome

AWAY: tuple[type[BaseException], ...] = (
    aiohttp.ClientError,  # the client's own way to blobs
    exception.ClientClosed,
    exception.ConnectionError,
    exception.InternalError,
    exception.ResourceExhaustedError,
    exception.ServiceError,
    OSError,
    StreamTerminatedError,
)
"""Modal does not answer, or not now: nothing is known about the job that was asked for."""

NOT_ADMITTED: tuple[type[BaseException], ...] = (exception.AuthError, exception.PermissionDeniedError)

_NOT_STARTED: tuple[type[BaseException], ...] = (
    *NOT_ADMITTED,
    exception.ClientClosed,
    exception.InvalidError,
    exception.NotFoundError,
    exception.RequestSizeError,
    exception.ResourceExhaustedError,
    exception.SerializationError,
    exception.UnimplementedError,
    exception.VersionError,
    ConnectionRefusedError,
)

_LIFETIME = "Modal keeps results for 7 days"


def outcome_of(job_id: str, value: Any) -> Outcome:
    """The outcome of a job whose Modal function returned."""
    if isinstance(value, str | bytes):
        return Outcome(job_id, reply=value.encode() if isinstance(value, str) else value)
    message = (
        f"its Modal function returned a {type(value).__name__}, not a reply of durable-monty; deploy an app of "
        "`durable_monty_modal.app.build_app`, or let the function return `durable_monty_modal.remote.run(envelope)`"
    )
    return Outcome(job_id, failure=Failure("undecodable", "DecodeError", message))


def is_not_ready(error: BaseException) -> bool:
    """Whether this is the client's word for "no result yet".

    It is a bare builtin `TimeoutError`. One that a remote function raised has a text; ours never raises one.
    """
    return type(error) is TimeoutError and not error.args


def failure_of(error: BaseException, *, is_cancelled: bool) -> Failure | None:
    """What an error of `FunctionCall.get` says about the job; None: nothing, ask again.

    Args:
        is_cancelled: Whether we have cancelled that job.
    """
    text = str(error)
    if isinstance(error, exception.FunctionTimeoutError):
        return Failure("timeout", "TimeoutError", text or "it ran into the timeout of its Modal function")
    if isinstance(error, exception.OutputExpiredError):
        return Failure("lost", "OutputExpiredError", f"its result has expired: {_LIFETIME}")
    if isinstance(error, exception.NotFoundError):
        return Failure("lost", "NotFoundError", f"Modal does not know it any more ({text}); {_LIFETIME}")
    if isinstance(error, exception.InternalFailure):
        return Failure("lost", "InternalFailure", text or "its container failed")
    if isinstance(error, exception.RemoteError):
        if is_cancelled or "cancel" in text.lower():
            return Failure("cancelled", "Cancelled", text or "it was cancelled")
        return Failure("lost", "RemoteError", text or "its container ended")
    if isinstance(error, exception.ExecutionError | exception.DeserializationError):
        return Failure("undecodable", type(error).__name__, text)
    is_remote = isinstance(error, TimeoutError)  # the client's own has been looked at by `is_not_ready`
    if not is_remote and isinstance(error, (*AWAY, exception.Error, grpclib.GRPCError, asyncio.CancelledError)):
        return None
    bases = tuple(base.__name__ for base in type(error).__mro__[1:] if base is not object)
    return Failure("user", type(error).__name__, text, "", bases)


def may_have_started(error: BaseException) -> bool:
    """Whether `spawn` may have started its call although it raised.

    The client sends a request again under one idempotency key, so that one lost answer does not start a call twice.
    What is left are answers that were lost every time.
    """
    return not isinstance(error, _NOT_STARTED) and not _was_never_connected(error)


def _was_never_connected(error: BaseException) -> bool:
    """Whether a connection could not be made, so that no request has left."""
    return isinstance(error, exception.ConnectionError) and any(
        words in str(error) for words in ("Connect call failed", "Could not connect", "Name or service not known")
    )

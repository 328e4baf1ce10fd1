"""What a `rq worker` runs. Standard library, RQ and the remote side of the core; no database, no sandbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import redis
from rq import get_current_job

from durable_monty import remote
from durable_monty.envelope import encode_failure
from durable_monty.models import Failure
from durable_monty_rq.pulse import Pulse

log = logging.getLogger(__name__)

_PUSH_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 5.0

_pulse = Pulse()


def run(stream: str, job_id: str, envelope: str, pulse_seconds: float) -> None:
    """Run the call in `envelope` and push its reply on `stream`.

    Args:
        pulse_seconds: Time between two signs of life meanwhile.

    Raises:
        redis.ConnectionError: Redis was away for a minute; the job fails, and its call is run again.
    """
    job = get_current_job()
    assert job is not None, "this function is run by a rq worker"
    connection = job.connection
    with _pulse.beating(job, pulse_seconds):
        reply = remote.run(envelope, lambda message: _beat(connection, stream, job_id, message))
        if b"JobTimeoutException" in reply:
            reply = _timed_out(job_id, reply)
        _push(connection, stream, job_id, reply)


def probe(functions: Sequence[str]) -> dict[str, Any]:
    """What this worker has: for `durable-monty executors check`.

    Returns:
        `version` of the core, `missing`: what it says about each function that cannot run here, and `is_signed`.
    """
    from importlib.metadata import version

    from durable_monty.errors import FunctionError
    from durable_monty.functions import resolve

    missing = {}
    for path in functions:
        try:
            resolve(path)
        except FunctionError as error:
            missing[path] = str(error)
    is_signed = remote.signing_key() is not None
    return {"version": version("durable-monty-core"), "missing": missing, "is_signed": is_signed}


def _timed_out(job_id: str, reply: bytes) -> bytes:
    """The reply of a function that RQ has stopped: RQ's exception passes through the user's code."""
    failure = remote.read_reply(reply).failure
    if failure is None or failure.type != "JobTimeoutException":
        return reply
    timeout = Failure("timeout", "TimeoutError", failure.message, failure.traceback)
    return encode_failure(job_id, timeout, remote.signing_key())


def _beat(connection: redis.Redis, stream: str, job_id: str, message: bytes) -> None:
    """Push a sign of life; one that does not arrive is followed by the next."""
    connection.xadd(stream, {"job": job_id, "beat": message})


def _push(connection: redis.Redis, stream: str, job_id: str, reply: bytes) -> None:
    """Push the reply; waits for a Redis that is away."""
    ends_at = time.monotonic() + _PUSH_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            connection.xadd(stream, {"job": job_id, "reply": reply})
        except (redis.ConnectionError, redis.TimeoutError) as error:
            if time.monotonic() + pause > ends_at:
                raise
            log.warning("pushing a reply failed, trying again: %s", error)
            time.sleep(pause)
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)
        else:
            return

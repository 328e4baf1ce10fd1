"""What RQ's words about a job that did not end well mean to us."""

from __future__ import annotations

from durable_monty.models import Failure


def read_failure(error: str, queue: str, serializer: str) -> Failure:
    """The failure that RQ's account of it stands for.

    Args:
        error: A traceback, RQ's own sentence, or the job's status.
        serializer: The executor's; the worker has the other one if it cannot read a job.
    """
    last = error.splitlines()[-1]
    if "JobTimeoutException" in last:
        return Failure("timeout", "TimeoutError", last.partition(": ")[2] or last)
    if "Job stopped by user" in error or error in ("stopped", "canceled"):
        return Failure("cancelled", "Cancelled", "the job was stopped in RQ")
    if "DeserializationError" in error:
        switch = "rq worker -S json" if serializer == "json" else "rq worker"
        return Failure(
            "refused",
            "DeserializationError",
            f"the worker of queue {queue!r} cannot read the job: executor and worker use different serializers; "
            f'start it as `{switch} {queue}`, or change `serializer = "{serializer}"` of the executor',
        )
    if "durable_monty" in last and ("ModuleNotFoundError" in last or "ImportError" in last or "attribute" in last):
        return Failure(
            "refused",
            "ModuleNotFoundError",
            f"the worker of queue {queue!r} has no durable_monty_rq: {last}; run `pip install durable-monty-rq` in "
            "the environment of the rq worker",
        )
    return Failure("lost", "Lost", last, error)

"""Executors of one test, through their hooks and through a worker."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import redis
from rq.job import Job as RQJob

from durable_monty import Call, OrchestratorService, RQExecutor, Worker, codec
from durable_monty.envelope import encode_envelope
from durable_monty.models import Job, Outcome
from support.workers import eventually


class Rig:
    """What tests of the RQ executor share.

    Attributes:
        stream: The stream of results of this test's executors.
        connection: A client of the same server.
    """

    def __init__(self, url: str, service: OrchestratorService) -> None:
        self.url = url
        self.service = service
        self.stream = f"results-{uuid.uuid4().hex[:8]}"
        self.connection = redis.Redis.from_url(url)
        self._executors: list[RQExecutor] = []

    def executor(self, queue: str, **settings: Any) -> RQExecutor:
        """An executor that sweeps twice a second."""
        defaults = {"redis_url": self.url, "result_stream": self.stream, "sweep_interval_seconds": 0.3}
        made = RQExecutor(queue_name=queue, **{**defaults, **settings})
        self._executors.append(made)
        return made

    def run(self, executor: Any, code: str, functions: Sequence[Any], inputs: dict[str, Any] | None = None) -> str:
        """Start an execution and have a worker run it to its end; gives its id."""
        execution_id = self.service.start_execution(code, functions, inputs)
        Worker(self.service, executor).run(until_complete=True)
        return execution_id

    def result(self, executor: Any, code: str, functions: Sequence[Any], inputs: dict[str, Any] | None = None) -> Any:
        """As `run`; gives its result."""
        return self.service.get_result(self.run(executor, code, functions, inputs))

    def job(self, job_id: str) -> RQJob:
        """What RQ has of a job."""
        return RQJob.fetch(job_id, connection=self.connection)

    def close(self) -> None:
        """Close what was opened."""
        for executor in self._executors:
            executor.stop(0)
        self.connection.close()


def make_call(function: Any, *args: Any, attempt: int = 1, key: bytes | None = None, **fields: Any) -> Call:
    """A call of an execution of its own."""
    execution_id = uuid.uuid4().hex
    job_id, arguments = f"{execution_id}-0-{attempt}", codec.dumps([list(args), {}])
    envelope = encode_envelope(job_id, function.path, arguments, key)
    return Call(job_id, execution_id, 0, attempt, function.path, arguments, envelope, **fields)


def poll(executor: RQExecutor, calls: Sequence[Call]) -> dict[str, Outcome]:
    """Poll until there is an outcome of every call."""
    found: dict[str, Outcome] = {}

    def is_complete() -> bool:
        jobs = [Job(call.job_id) for call in calls if call.job_id not in found]
        found.update({outcome.job_id: outcome for outcome in executor.poll(jobs, 0.1)} if jobs else {})
        return len(found) >= len(calls)

    eventually(is_complete)
    return found

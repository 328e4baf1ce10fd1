"""The pre-flight check: Redis, its persistence, workers, and what a worker has."""

from __future__ import annotations

import time
from typing import Any

import redis
from rq import Worker
from rq.job import Job as RQJob
from rq.job import JobStatus

from durable_monty.models import Finding
from durable_monty_rq.failures import read_failure
from durable_monty_rq.queueing import Queues
from durable_monty_rq.settings import RQSettings

_PROBE_SECONDS = 5.0


def check(connection: redis.Redis, queues: Queues, settings: RQSettings, where: str) -> list[Finding]:
    """See `ExecutorSpec.check`."""
    try:
        server: Any = connection.info("server")
        persistence: Any = connection.info("persistence")
    except redis.RedisError as error:
        text = f"Redis at {where} does not answer: {error}"
        return [Finding("error", text, "start it, or set redis_url of the executor")]
    findings = [Finding("info", f"Redis {server['redis_version']} at {where}")]
    if persistence.get("aof_enabled"):
        findings.append(Finding("info", "Redis keeps an append-only file: its jobs survive a restart"))
    else:
        text = "Redis keeps no append-only file: after a restart its jobs are lost and run again"
        findings.append(Finding("warning", text, "set `appendonly yes` in redis.conf"))
    return findings + _check_workers(queues, settings)


def _check_workers(queues: Queues, settings: RQSettings) -> list[Finding]:
    queue = queues.get(None)
    workers = Worker.all(queue=queue)
    if not workers:
        return [Finding("error", f"no worker listens on the queue {queue.name!r}", f"start `rq worker {queue.name}`")]
    findings = [Finding("info", f"{len(workers)} workers listen on the queue {queue.name!r}, {len(queue)} jobs wait")]
    job = queue.enqueue(
        "durable_monty_rq.remote.probe", args=(settings.check_functions,), result_ttl=60, failure_ttl=60
    )
    try:
        return findings + _probed(job, queue.name, settings)
    finally:
        job.delete()


def _probed(job: RQJob, queue: str, settings: RQSettings) -> list[Finding]:
    """What a worker answers about itself."""
    ends_at = time.monotonic() + _PROBE_SECONDS
    while (status := job.get_status()) not in (JobStatus.FINISHED, JobStatus.FAILED):
        if time.monotonic() > ends_at:
            text = f"no worker of the queue {queue!r} answered within {_PROBE_SECONDS:.0f} s: they are busy, or stuck"
            return [Finding("warning", text, "check again when they are idle")]
        time.sleep(0.05)
    result = job.latest_result()
    if status is JobStatus.FAILED or result is None:
        error = (result.exc_string or "").strip() if result is not None else ""
        failure = read_failure(error or status.value, queue, settings.serializer)
        return [Finding("error", f"a worker of the queue {queue!r} cannot run our jobs: {failure.message}")]
    answer: Any = result.return_value
    findings = [Finding("info", f"a worker has durable-monty-core {answer['version']}")]
    for path, problem in answer["missing"].items():
        findings.append(
            Finding("error", f"a worker cannot run {path!r}: {problem}", "install it where the worker runs")
        )
    return findings

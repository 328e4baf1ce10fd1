"""Signs of life of the job that this process runs, so that only the dead are taken for dead.

RQ's own heartbeats come from the parent of a work horse: a `SimpleWorker` has none while a function runs, and an orphaned
horse, whose parent was killed, works on without.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

import redis
from rq import Worker
from rq.job import Job as RQJob
from rq.utils import now

log = logging.getLogger(__name__)

_TTL_SECONDS = 120
"""For so long after a beat RQ's own registries believe that the job is running."""


class Pulse:
    """One thread per process that beats for whatever job runs here; a short job never meets it."""

    def __init__(self) -> None:
        self._job: RQJob | None = None
        self._every_seconds = 0.0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def beating(self, job: RQJob, every_seconds: float) -> Iterator[None]:
        """Give signs of life of `job` until the block ends, the first one within two `every_seconds`."""
        self._job, self._every_seconds = job, every_seconds
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="durable-monty-pulse", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            self._job = None

    def _beat(self) -> None:
        seen: RQJob | None = None
        while True:
            # Nobody wakes it: a switch of threads at each job would cost more than the job.
            time.sleep(self._every_seconds)
            seen, before = self._job, seen
            if seen is None or seen is not before:
                continue
            try:
                _beat_once(seen)
            except redis.RedisError as error:
                log.warning("a sign of life could not be given: %s", error)


def _beat_once(job: RQJob) -> None:
    executions = job.get_executions()
    pipeline = job.connection.pipeline()
    job.heartbeat(now(), _TTL_SECONDS, pipeline=pipeline)
    for execution in executions:
        execution.heartbeat(job.started_job_registry, _TTL_SECONDS, pipeline=pipeline)
    if job.worker_name:
        pipeline.expire(f"{Worker.redis_worker_namespace_prefix}{job.worker_name}", _TTL_SECONDS, gt=True)
    pipeline.execute()
    if not job.connection.hexists(job.key, "status"):
        # It was removed meanwhile; what the beat made of it must not stay.
        job.connection.delete(job.key)

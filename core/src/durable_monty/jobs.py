"""The jobs that this worker has handed to executors and has no outcome of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from durable_monty.models import Job, job_id_of
from durable_monty.records import DueCall


@dataclass(slots=True)
class OpenJob:
    """One job: where it is, and the call that it is an attempt of.

    Attributes:
        job: As the executor's hooks take it.
        taken_over_at: When this worker took it over from one that is gone, by the monotonic clock; None: it did not.
        is_submitting: Its executor was not heard of yet, so it may not know it.
    """

    executor: str
    due: DueCall
    job: Job
    taken_over_at: float | None = None
    is_submitting: bool = False


def job_id(due: DueCall) -> str:
    """The job id of the current attempt of a call."""
    return job_id_of(due.execution_id, due.row.call_id, due.row.attempt)


class OpenJobs:
    """By executor and job id. Safe to use from several threads: polling reads what dispatching writes.

    Args:
        worker: Gives the id of the worker.
    """

    def __init__(self, worker: Callable[[], str] = lambda: "") -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._jobs: dict[str, OpenJob] = {}
        self._by_executor: dict[str, dict[str, OpenJob]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def worker(self) -> str:
        """The worker whose jobs these are."""
        return self._worker()

    def add(
        self, executor: str, calls: Iterable[DueCall], *, is_taken_over: bool = False, is_submitting: bool = False
    ) -> None:
        """Remember calls that are about to be submitted, or are known to be running."""
        taken_over_at = time.monotonic() if is_taken_over else None
        with self._lock:
            there = self._by_executor.setdefault(executor, {})
            for due in calls:
                key = job_id(due)
                # An attempt that was ended through the service is followed by this one without a word from its executor.
                self._remove(job_id_of(due.execution_id, due.row.call_id, due.row.attempt - 1))
                job = Job(key, due.row.token or None)
                self._jobs[key] = there[key] = OpenJob(executor, due, job, taken_over_at, is_submitting)

    def set_token(self, key: str, token: str | None) -> None:
        """Remember what the executor answered."""
        with self._lock:
            if key in self._jobs:
                self._jobs[key].job = Job(key, token or None)

    def set_submitted(self, keys: Iterable[str]) -> None:
        """From now on these may be polled."""
        with self._lock:
            for key in keys:
                if key in self._jobs:
                    self._jobs[key].is_submitting = False

    def get(self, key: str) -> OpenJob | None:
        """The job, or None if it is not one of this worker's."""
        return self._jobs.get(key)

    def remove(self, keys: Iterable[str]) -> None:
        """Forget jobs; unknown ones are ignored."""
        with self._lock:
            for key in keys:
                self._remove(key)

    def count(self, executor: str) -> int:
        """How many jobs are open there."""
        return len(self._by_executor.get(executor, ()))

    def of(self, executor: str, start: int, size: int) -> list[Job]:
        """Of `size` jobs that are open there, from the `start`th oldest on, those that its executor can know."""
        with self._lock:
            chosen = islice(self._by_executor.get(executor, {}).values(), start, start + size)
            return [item.job for item in chosen if not item.is_submitting]

    def all(self) -> list[OpenJob]:
        """Every open job."""
        with self._lock:
            return list(self._jobs.values())

    def _remove(self, key: str) -> None:
        job = self._jobs.pop(key, None)
        if job is not None:
            self._by_executor[job.executor].pop(key, None)

"""Keeping functions from running far ahead of the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

MAX_AGE_SECONDS = 0.005
"""How old an outcome that is not durable may be while further calls are begun."""


class Backlog:
    """Outcomes that were told to the worker and that it has not made durable yet.

    Functions that keep every processor busy leave little for the worker's own thread. Without a brake they would
    finish call after call meanwhile, and a process that is killed then would have to run all of those again.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._told_at: dict[str, float] = {}

    def add(self, job_id: str) -> None:
        """An outcome was told."""
        with self._condition:
            self._told_at.setdefault(job_id, time.monotonic())

    def remove(self, job_ids: Iterable[str]) -> None:
        """These outcomes are durable."""
        with self._condition:
            for job_id in job_ids:
                self._told_at.pop(job_id, None)
            self._condition.notify_all()

    def clear(self) -> None:
        """Nobody waits for any outcome any more."""
        with self._condition:
            self._told_at.clear()
            self._condition.notify_all()

    def wait(self) -> None:
        """Wait while an outcome has been there for too long."""
        with self._condition:
            while self._told_at and time.monotonic() - next(iter(self._told_at.values())) > MAX_AGE_SECONDS:
                self._condition.wait()

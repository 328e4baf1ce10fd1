"""Telling when the time of a call is over, for calls whose thread cannot be interrupted."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

from durable_monty.models import Call


class Deadlines:
    """One daemon thread that waits for the next deadline; started with the first.

    Args:
        expired: Gets each call whose time is over.
    """

    def __init__(self, expired: Callable[[Call], None]) -> None:
        self._expired = expired
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Call]] = []
        self._count = 0
        self._thread: threading.Thread | None = None

    def add(self, call: Call) -> None:
        """Watch a call that has just begun to run; nothing happens if it has no time limit."""
        if call.timeout_seconds is None:
            return
        with self._condition:
            self._count += 1
            heapq.heappush(self._heap, (time.monotonic() + call.timeout_seconds, self._count, call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="durable-monty-local-deadlines", daemon=True)
                self._thread.start()
            self._condition.notify()

    def _watch(self) -> None:
        while True:
            with self._condition:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    self._condition.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                call = heapq.heappop(self._heap)[2]
            self._expired(call)

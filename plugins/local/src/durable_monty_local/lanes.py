"""Where plain functions run: a few daemon threads that take jobs from one queue.

Not `concurrent.futures`: its threads are joined when the interpreter exits, so that a function which hangs would keep a
stopped worker alive.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from durable_monty.models import Call

Run = Callable[[Call], None]
"""Runs one call and reports its outcome; never raises."""


class Lane(Protocol):
    """What one thread runs calls with."""

    def run(self, call: Call) -> None:
        """Run one call and report its outcome; never raises."""

    def close(self) -> None:
        """Free what the lane holds; called in its thread."""


class Lanes:
    """Threads, started when they are needed, up to a number.

    Args:
        make_lane: Makes what one thread runs calls with.
        size: Most threads.
    """

    def __init__(self, make_lane: Callable[[], Lane], size: int) -> None:
        self._make_lane = make_lane
        self._size = size
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def put(self, call: Call) -> None:
        """Queue a call."""
        self._queue.put(call)
        if len(self._threads) < self._size and self._queue.qsize() > 0:
            thread = threading.Thread(target=self._work, name=f"durable-monty-local-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Let every thread end after the call that it runs; waits for none."""
        for _ in self._threads:
            self._queue.put(None)
        self._threads = []

    def _work(self) -> None:
        lane = self._make_lane()
        try:
            while (call := self._queue.get()) is not None:
                lane.run(call)
        finally:
            lane.close()

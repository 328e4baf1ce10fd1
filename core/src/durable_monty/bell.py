"""Waking up: one place where a worker's loop waits, and everybody with news for it rings."""

from __future__ import annotations

import threading


class Bell:
    """Remembers that it was rung, so that no ring between looking and waiting is missed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0

    @property
    def rings(self) -> int:
        """How often it was rung so far; pass it to `wait` later."""
        return self._rings

    def ring(self) -> None:
        """Wake everybody who waits. May be called from any thread."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_seconds: float) -> bool:
        """Wait until it has been rung more often than `seen`; returns whether it has."""
        with self._condition:
            return self._condition.wait_for(lambda: self._rings > seen, timeout_seconds)

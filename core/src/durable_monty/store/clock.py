"""The time that everything durable goes by: on PostgreSQL the server's, whatever the clocks of its clients say."""

from __future__ import annotations

import threading
import time

from durable_monty.store.connections import Connections
from durable_monty.store.fixed import Fixed

_NOW = Fixed("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")


class DatabaseClock:
    """The time, in seconds since the epoch; call it.

    Leases, timers and time limits are compared by processes on many machines. If each went by its own clock, one that is
    an hour ahead would take everybody for dead and every timer for due, and one that is late would start nothing. On
    PostgreSQL the server is asked now and then, and the time since is counted by a clock that nobody sets. Processes
    on one SQLite file share a machine and its clock.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        # The server's time when the monotonic clock was at 0; None: not asked yet.
        self._zero: float | None = None
        self._asked_at = 0.0

    def __call__(self) -> float:
        """The time; asks the server only if it was never asked.

        Raises:
            StoreUnreachable: It was never asked, and the database does not answer.
        """
        if not self._connections.is_postgresql:
            return time.time()
        if self._zero is None:
            self.ask()
        assert self._zero is not None
        return self._zero + time.monotonic()

    def ask(self, older_than_seconds: float = 0.0) -> None:
        """Ask the server, if it was asked longer ago than this.

        Raises:
            StoreUnreachable: The database does not answer; the time goes on as before.
        """
        if not self._connections.is_postgresql:
            return
        with self._lock:
            if self._zero is not None and time.monotonic() - self._asked_at < older_than_seconds:
                return
            with self._connections.read_at_once() as connection:
                # Connected by now: that is not to count.
                before = time.monotonic()
                now: float = _NOW.mappings(connection, {})[0]["now"]
                after = time.monotonic()
            self._asked_at = after
            # Within what the question took nothing is known better than before, and time had better not go back.
            if self._zero is None or not now - after <= self._zero <= now - before:
                self._zero = now - (before + after) / 2

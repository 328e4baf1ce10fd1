"""Noticing that executions have ended, for any number of waiters at the price of one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from durable_monty.bell import Bell
from durable_monty.errors import StoreError
from durable_monty.store import Store
from durable_monty.store.changes import PostgresqlChanges, SqliteChanges

# Between two looks at whether another process has written to SQLite.
_FIRST_STEP_SECONDS = 0.002
_LAST_STEP_SECONDS = 0.02
# Notifications that are lost are made up for by a look now and then.
_LONGEST_WAIT_SECONDS = 5.0
# A process that commits all the time is not asked after each commit.
_LONGEST_GAP_SECONDS = 0.02
# Connecting anew for each waiter that comes costs more than a thread that sleeps.
_LINGER_SECONDS = 5.0


class Ends:
    """Tells waiters when executions have ended, are paused, or are gone.

    What ends in this process is told by who commits it. For the rest there is one thread, which lives while somebody
    waits: it asks about all of them with one query whenever PostgreSQL notifies or SQLite's file has changed. Safe to
    use from several threads.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._bell = Bell()
        self._is_look_wanted = False
        self._thread: threading.Thread | None = None
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._is_closed = False
        self._closes = 0
        self._pid = os.getpid()

    @contextmanager
    def watching(self, execution_id: str, ended: Callable[[], None]) -> Iterator[None]:
        """Within the block, `ended` is called once, from another thread, when the execution may have ended.

        It is also called when the database does not answer: look, and wait again. Whether it has ended before has to
        be looked at within the block.

        Raises:
            StoreError: At the end of the block: `close` was called meanwhile.
        """
        closes = self._closes
        self._add(execution_id, ended)
        try:
            yield
        finally:
            self._discard(execution_id, ended)
        if closes != self._closes:
            # To look once more would open connections that nobody closes.
            raise StoreError(
                f"waiting for execution {execution_id!r}: the service was closed meanwhile; wait with one that is open"
            )

    def close(self) -> None:
        """Let everybody who waits give up, and end the thread."""
        with self._lock:
            self._is_closed = True
            self._closes += 1
            thread = self._thread
        self._bell.ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LONGEST_WAIT_SECONDS)
        self._is_closed = False

    def _add(self, execution_id: str, ended: Callable[[], None]) -> None:
        with self._lock:
            if self._pid != os.getpid():
                # The parent's thread does not exist here, and its waiters wait there.
                self._pid, self._thread, self._waiting, self._bell = os.getpid(), None, {}, Bell()
            self._waiting.setdefault(execution_id, []).append(ended)
            is_first = len(self._waiting) == 1
            if self._thread is None:
                self._is_look_wanted = True
                self._thread = threading.Thread(target=self._run, name="durable-monty-ends", daemon=True)
                self._thread.start()
        if is_first:
            self._bell.ring()

    def _discard(self, execution_id: str, ended: Callable[[], None]) -> None:
        with self._lock:
            waiters = self._waiting.get(execution_id, [])
            if ended in waiters:
                waiters.remove(ended)
            if not waiters:
                self._waiting.pop(execution_id, None)

    def _run(self) -> None:
        changes = self._store.watch_ends(self._want_look)
        gap = 0.0
        try:
            with self._store.announcing(self._hear):
                while True:
                    seen = self._bell.rings
                    if self._is_look_wanted:
                        self._is_look_wanted = False
                        gap = 0.0 if self._look() else min(gap * 2 + 0.001, _LONGEST_GAP_SECONDS)
                    # Closing rings after it has said so: one of the two is noticed.
                    is_rung = self._is_closed or self._sleep(seen, changes)
                    if self._is_over(is_rung=is_rung):
                        return
                    if self._is_look_wanted:
                        time.sleep(gap)
        finally:
            if changes is not None:
                changes.close()

    def _want_look(self) -> None:
        self._is_look_wanted = True
        self._bell.ring()

    def _hear(self, ended: Collection[str] | None) -> None:
        """What this process has committed ended these executions; None: it may have ended any."""
        if ended is None:
            self._want_look()
        else:
            self._tell(ended)

    def _tell(self, ids: Collection[str]) -> bool:
        """Tell those who wait for one of these executions; returns whether there were any."""
        with self._lock:
            told = [ended for execution_id in ids for ended in self._waiting.pop(execution_id, [])]
        for ended in told:
            ended()
        return bool(told)

    def _look(self) -> bool:
        """Tell those whose execution may have ended; returns whether there were any."""
        with self._lock:
            ids = list(self._waiting)
        try:
            over = set(ids) - self._store.listing.living(ids)
        except StoreError:
            # They ask themselves, and raise what they find.
            over = set(ids)
        return self._tell(over)

    def _sleep(self, seen: int, changes: SqliteChanges | PostgresqlChanges | None) -> bool:
        """Wait for a ring or a change; returns whether there was one."""
        is_polled = changes is not None and changes.is_polled and bool(self._waiting)
        until = time.monotonic() + (_LONGEST_WAIT_SECONDS if self._waiting else _LINGER_SECONDS)
        step = _FIRST_STEP_SECONDS if is_polled else _LONGEST_WAIT_SECONDS
        while (left := until - time.monotonic()) > 0:
            if self._bell.wait(seen, min(step, left)):
                return True
            if is_polled and changes is not None and _has_changed(changes):
                self._is_look_wanted = True
                return True
            step = min(step * 1.5, _LAST_STEP_SECONDS)
        self._is_look_wanted = True
        return False

    def _is_over(self, *, is_rung: bool) -> bool:
        """Whether the thread is to end; nobody can begin to wait in between."""
        with self._lock:
            if not self._is_closed and (is_rung or self._waiting):
                return False
            waiting, self._waiting, self._thread = self._waiting, {}, None
        for ended in (ended for waiters in waiting.values() for ended in waiters):
            ended()
        return True


def _has_changed(changes: SqliteChanges | PostgresqlChanges) -> bool:
    try:
        return changes.changed()
    except StoreError:
        return True

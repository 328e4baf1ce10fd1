"""Transactions in which a host function writes and the outcome of its call is recorded: both become durable, or neither."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, RootTransaction, create_engine, text
from sqlalchemy.exc import InterfaceError, OperationalError

from durable_monty.errors import StoreUnreachable
from durable_monty.models import parse_job_id
from durable_monty.store.commit_postgresql import CHANNEL
from durable_monty.store.connections import Connections

_SETTLE = text("""
UPDATE calls SET status = 'completed', outcome = :outcome, ended_at = :now, worker = NULL, due_at = NULL,
    expires_at = NULL
WHERE execution_id = :execution_id AND call_id = :call_id AND attempt = :attempt
    AND status IN ('pending', 'submitting', 'submitted')
""")
_WAKE = text("""
UPDATE executions SET wake_at = :now WHERE id = :execution_id AND status IN ('scheduled', 'running', 'waiting')
""")
_SQLITE_WAIT_SECONDS = 30.0


class CallTransactions:
    """Makes the transactions of one process.

    Args:
        settled: Called after each commit, from the thread of the function.
        clock: The time, in seconds since the epoch.
    """

    def __init__(self, connections: Connections, settled: Callable[[], None], clock: Callable[[], float]) -> None:
        self._connections = connections
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self.settled = settled
        self.clock = clock
        self.writer = threading.Lock()
        """SQLite lets one write at a time; waiting for each other here costs no polling."""

    def make(self, job_id: str) -> CallTransaction:
        """The transaction of one attempt; begun when it is first asked for its connection."""
        return CallTransaction(self, job_id)

    @property
    def is_postgresql(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self._connections.is_postgresql

    def hide(self, value_text: str, execution_id: str, call_id: int) -> Any:
        """An outcome as it is stored."""
        return self._connections.vault.hide(value_text, "outcome", execution_id, call_id)

    def check(self, job_id: str) -> None:
        """Whether there can be a connection.

        Raises:
            RuntimeError: The database is in memory, or it is SQLite and the function an `async def` one.
        """
        what = f"current_call().connection in {job_id!r}"
        if self._connections.is_in_memory:
            raise RuntimeError(f"{what}: a database in memory has one connection only; use a file or PostgreSQL")
        if not self.is_postgresql and _is_on_a_loop():
            raise RuntimeError(
                f"{what}: on SQLite, which lets one write at a time, an `async def` function would hold up its event loop; "
                "declare it with `def`"
            )

    def connect(self) -> Connection:
        """A connection of its own."""
        if not self.is_postgresql:
            return self._connections.engine.connect()
        with self._lock:
            # Not from the worker's pool: functions may hold more connections than that has.
            if self._engine is None:
                self._engine = create_engine(self._connections.engine.url, poolclass=NullPool)
        return self._engine.connect()


class CallTransaction:
    """One attempt's transaction; used by one thread. See `durable_monty.remote.Transaction`."""

    def __init__(self, owner: CallTransactions, job_id: str) -> None:
        self._owner = owner
        self._job_id = job_id
        self._connection: Connection | None = None
        self._transaction: RootTransaction | None = None
        self._holds_writer = False

    def connect(self) -> Connection:
        """The connection; begins the transaction at the first call.

        Raises:
            RuntimeError: There is no connection to be had.
        """
        if self._connection is not None:
            return self._connection
        self._owner.check(self._job_id)
        if not self._owner.is_postgresql:
            self._holds_writer = self._owner.writer.acquire(timeout=_SQLITE_WAIT_SECONDS)
            if not self._holds_writer:
                raise RuntimeError(
                    f"current_call().connection in {self._job_id!r}: other functions have been writing to this SQLite "
                    f"database for {_SQLITE_WAIT_SECONDS:.0f} s; keep their transactions short, or use PostgreSQL"
                )
        try:
            self._connection = self._owner.connect()
            self._transaction = self._connection.begin()
        except BaseException:
            self._close()
            raise
        return self._connection

    def settle(self, value_text: str) -> bool:
        """Record the value and commit; False if nothing was begun, or if the attempt comes too late: it is rolled back.

        Raises:
            RuntimeError: The function has ended the transaction itself.
            StoreUnreachable: It is not known whether the commit happened.
        """
        connection, transaction = self._connection, self._transaction
        if connection is None or transaction is None:
            return False
        if not transaction.is_active:
            self._close()
            raise RuntimeError(
                f"current_call().connection in {self._job_id!r} was committed or rolled back by the function; leave "
                "that to durable-monty, which records the outcome of the call in the same transaction"
            )
        execution_id, call_id, attempt = parse_job_id(self._job_id)
        this = {"execution_id": execution_id, "now": self._owner.clock()}
        try:
            outcome = self._owner.hide(value_text, execution_id, call_id)
            settled = connection.execute(
                _SETTLE, {**this, "call_id": call_id, "attempt": attempt, "outcome": outcome}
            ).rowcount
            if not settled:
                transaction.rollback()
                return False
            connection.execute(_WAKE, this)
            if self._owner.is_postgresql:
                connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
            transaction.commit()
        except (OperationalError, InterfaceError) as error:
            raise StoreUnreachable(
                f"committing the transaction of {self._job_id!r}: {error.orig}; whether it happened is not known"
            ) from error
        finally:
            self._close()
        self._owner.settled()
        return True

    def abandon(self) -> None:
        """Roll back what was begun and not committed."""
        self._close()

    def _close(self) -> None:
        connection, self._connection, self._transaction = self._connection, None, None
        try:
            if connection is not None:
                connection.close()
        finally:
            if self._holds_writer:
                self._holds_writer = False
                self._owner.writer.release()


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

"""One kept writing connection per process, short reading ones, and database errors in our words."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from durable_monty.errors import StoreError, StoreUnreachable
from durable_monty.store.engines import shown


class Connections:
    """Access to one database from one process; safe to use from several threads.

    Writers take turns on one kept connection: opening a transaction on it costs no pool checkout and no ping, and
    within a process nobody waits for SQLite's lock by polling.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = threading.RLock()
        self._kept: dict[str | None, Connection] = {}
        self._pid = os.getpid()
        self._announced: list[Callable[[], None]] = []

    @property
    def is_postgresql(self) -> bool:
        """Whether the database is PostgreSQL; SQLite otherwise."""
        return self.engine.dialect.name == "postgresql"

    @property
    def is_in_memory(self) -> bool:
        """Whether the database lives and dies with this process."""
        return not self.is_postgresql and self.engine.url.database in (None, "", ":memory:")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction; committed at the end of the block, rolled back by an exception.

        Raises:
            StoreUnreachable: The database went away; the transaction may or may not have been committed.
            StoreError: The database refused what was asked; nothing was written.
        """
        with self._transaction() as connection:
            yield connection
        self._announce()

    @contextmanager
    def announcing(self, committed: Callable[[], None]) -> Iterator[None]:
        """Within the block, `committed` is called after each transaction of this process that writes."""
        self._announced.append(committed)
        try:
            yield
        finally:
            self._announced.remove(committed)

    @contextmanager
    def write_at_once(self) -> Iterator[Connection]:
        """A connection for one statement that is a transaction of its own: on PostgreSQL a single round trip.

        Raises:
            StoreUnreachable: As `write`.
            StoreError: As `write`.
        """
        if not self.is_postgresql:
            with self.write() as connection:
                yield connection
            return
        with self._lock, self._translated():
            yield self._kept_connection("AUTOCOMMIT")
        self._announce()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for queries that see one state of the database."""
        self._check_fork()
        if self.is_in_memory:
            # There is only one connection to a database in memory.
            with self._transaction() as connection:
                yield connection
            return
        with (
            self._translated(),
            self.engine.connect() as connection,
            connection.execution_options(is_reader=True).begin(),
        ):
            yield connection

    def data_version(self) -> int:
        """SQLite's count of commits by other connections than the writing one."""
        with self._lock, self._translated():
            raw: Any = self._kept_connection(None).connection.driver_connection
            return int(raw.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Close every connection of this process."""
        with self._lock:
            self._drop_kept()
            self.engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._lock, self._translated():
            connection = self._kept_connection(None)
            with connection.begin():
                yield connection

    def _announce(self) -> None:
        for committed in tuple(self._announced):
            committed()

    def _kept_connection(self, isolation_level: str | None) -> Connection:
        self._check_fork()
        kept = self._kept.get(isolation_level)
        if kept is None or kept.invalidated or kept.closed:
            kept = self.engine.connect()
            if isolation_level is not None:
                kept = kept.execution_options(isolation_level=isolation_level)
            self._kept[isolation_level] = kept
        return kept

    def _check_fork(self) -> None:
        if self._pid != os.getpid():
            # The parent's sockets and file locks are not ours to use, nor to close.
            self.engine.dispose(close=False)
            self._kept, self._lock, self._pid = {}, threading.RLock(), os.getpid()

    def _drop_kept(self) -> None:
        kept, self._kept = self._kept, {}
        for connection in kept.values():
            connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            if error.connection_invalidated:
                self._drop_kept()
            raise StoreUnreachable(self._message(error)) from error
        except DBAPIError as error:
            raise StoreError(self._message(error)) from error

    def _message(self, error: DBAPIError) -> str:
        cause = str(error.orig).strip().splitlines()
        return (
            f"working on the database {shown(self.engine.url)!r}: {cause[0] if cause else type(error.orig).__name__}; "
            "check that it runs, can be written and has space"
        )

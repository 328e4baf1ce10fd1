"""One kept writing connection per process, short reading ones, and database errors in our words."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from durable_monty.errors import StoreError, StoreUnreachable
from durable_monty.store.engines import shown
from durable_monty.store.vault import Vault, attach


class Connections:
    """Access to one database from one process; safe to use from several threads.

    Writers take turns on one kept connection: opening a transaction on it costs no pool checkout and no ping, and
    within a process nobody waits for SQLite's lock by polling.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.vault = Vault()
        attach(self.vault, engine)
        # Its errors: the hot path uses the driver's connection, so that SQLAlchemy does not see them.
        self._driver: Any = engine.dialect.loaded_dbapi
        # SQLite shows a transaction one state of the database; PostgreSQL shows each of its statements the latest, so
        # that to begin and end one would be round trips for nothing.
        self._reading = {"isolation_level": "AUTOCOMMIT"} if self.is_postgresql else {"is_reader": True}
        self._lock = threading.RLock()
        self._kept: dict[str | None, Connection] = {}
        self._pid = os.getpid()
        self._announced: list[Callable[[Collection[str] | None], None]] = []

    @property
    def is_postgresql(self) -> bool:
        """Whether the database is PostgreSQL; SQLite otherwise."""
        return self.engine.dialect.name == "postgresql"

    @property
    def is_in_memory(self) -> bool:
        """Whether the database lives and dies with this process."""
        return not self.is_postgresql and self.engine.url.database in (None, "", ":memory:")

    @contextmanager
    def write(self, *, is_quiet: bool = False) -> Iterator[Connection]:
        """A transaction; committed at the end of the block, rolled back by an exception.

        Args:
            is_quiet: Announce nothing: whoever uses it knows what it ends.

        Raises:
            StoreUnreachable: The database went away; the transaction may or may not have been committed.
            StoreError: The database refused what was asked; nothing was written.
        """
        with self._transaction() as connection:
            yield connection
        if not is_quiet:
            self.announce(None)

    @contextmanager
    def announcing(self, committed: Callable[[Collection[str] | None], None]) -> Iterator[None]:
        """Within the block, `committed` is called with what `announce` is given, and with None after each `write`."""
        self._announced.append(committed)
        try:
            yield
        finally:
            self._announced.remove(committed)

    @contextmanager
    def write_at_once(self) -> Iterator[Connection]:
        """A connection for one statement that is a transaction of its own: on PostgreSQL a single round trip.

        Announces nothing; whoever ends executions does.

        Raises:
            StoreUnreachable: As `write`.
            StoreError: As `write`.
        """
        if not self.is_postgresql:
            with self.write(is_quiet=True) as connection:
                yield connection
            return
        with self._lock, self._translated():
            yield self._kept_connection("AUTOCOMMIT")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for queries; on SQLite they see one state of the database."""
        self._check_fork()
        if self.is_in_memory:
            # There is only one connection to a database in memory.
            with self._transaction() as connection:
                yield connection
            return
        with (
            self._translated(),
            self.engine.connect() as connection,
            connection.execution_options(**self._reading).begin(),
        ):
            yield connection

    @contextmanager
    def read_at_once(self) -> Iterator[Connection]:
        """A connection for one query; on PostgreSQL a single round trip."""
        if not self.is_postgresql:
            with self.read() as connection:
                yield connection
            return
        with self._lock, self._translated():
            yield self._kept_connection("AUTOCOMMIT")

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

    def announce(self, ended: Collection[str] | None) -> None:
        """Tell this process that these executions have ended; None: that any may have."""
        for committed in tuple(self._announced):
            committed(ended)

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

    def _drop_kept(self, error: BaseException | None = None) -> None:
        """Close the kept connections; after an error of the driver they are of no more use to the pool either."""
        kept, self._kept = self._kept, {}
        for connection in kept.values():
            if error is not None and self.is_postgresql:
                connection.invalidate(error)
            connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            if error.connection_invalidated:
                self._drop_kept()
            raise StoreUnreachable(self._message(error.orig)) from error
        except DBAPIError as error:
            raise StoreError(self._message(error.orig)) from error
        except (self._driver.OperationalError, self._driver.InterfaceError) as error:
            self._drop_kept(error)
            raise StoreUnreachable(self._message(error)) from error
        except self._driver.Error as error:
            raise StoreError(self._message(error)) from error

    def _message(self, error: BaseException | None) -> str:
        cause = str(error).strip().splitlines()
        return (
            f"working on the database {shown(self.engine.url)!r}: {cause[0] if cause else type(error).__name__}; "
            "check that it runs, can be written and has space"
        )

"""Noticing that another process has written to the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine

from durable_monty.store.commit_postgresql import CHANNEL

log = logging.getLogger(__name__)

ENDED_CHANNEL = "durable_monty_ended"
"""The channel on which a trigger of the database notifies that an execution has ended or is paused."""

_RECONNECT_SECONDS = 2.0


class SqliteChanges:
    """Asks SQLite for the number that changes when another connection commits.

    Args:
        data_version: Asks it on the connection on which this process writes, so that its own commits do not count.
    """

    is_polled = True
    """Whether somebody has to ask."""

    def __init__(self, data_version: Callable[[], int]) -> None:
        self._data_version = data_version
        self._seen: int | None = None

    def changed(self) -> bool:
        """Whether another process has committed since the last question.

        Raises:
            StoreError: The database does not answer.
        """
        version = self._data_version()
        is_changed = self._seen is not None and version != self._seen
        self._seen = version
        return is_changed

    def close(self) -> None:
        """Nothing is held."""


class PostgresqlChanges:
    """Listens on a channel, by default that on which every writer of runnable work notifies; a thread of its own.

    Args:
        notified: Called for each notification, in that thread.
    """

    is_polled = False

    def __init__(self, engine: Engine, notified: Callable[[], None], channel: str = CHANNEL) -> None:
        self._engine = engine
        self._channel = channel
        self._notified = notified
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="durable-monty-listen", daemon=True)
        self._thread.start()

    def changed(self) -> bool:
        """Never: the notification has rung already."""
        return False

    def close(self) -> None:
        """Stop listening; the thread ends by itself within a moment."""
        self._stopping.set()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._engine.connect() as connection:
                    try:
                        self._hear(connection)
                    finally:
                        # It is in no state to go back to the pool, and may be broken.
                        connection.invalidate()
            except Exception as error:  # noqa: BLE001
                # psycopg's own errors are not wrapped outside a statement of SQLAlchemy.
                if self._stopping.is_set():
                    return
                log.warning("listening for changes failed: %s", str(error).splitlines()[0])
                self._stopping.wait(_RECONNECT_SECONDS)

    def _hear(self, connection: Connection) -> None:
        raw: Any = connection.connection.driver_connection
        raw.rollback()
        raw.autocommit = True
        raw.execute(f"LISTEN {self._channel}")
        # What was notified while nobody listened is found by looking.
        self._notified()
        while not self._stopping.is_set():
            for _ in raw.notifies(timeout=0.5, stop_after=1):
                self._notified()

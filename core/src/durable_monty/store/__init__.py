"""The database, and the only part of the project that talks to it."""

from __future__ import annotations

import functools
from typing import Any

from durable_monty.store.attempts import cancelled_child, failure_text, read_failure
from durable_monty.store.engines import open_engine, verify
from durable_monty.store.migrate import HEAD, current, upgrade
from durable_monty.store.store import Store

__all__ = [
    "HEAD",
    "Store",
    "cancelled_child",
    "current_revision",
    "failure_text",
    "init_db",
    "open_scratch",
    "open_store",
    "read_failure",
]

DEFAULT_URL = "sqlite:///durable_functions.db"
_IN_MEMORY = "sqlite:///:memory:"


def init_db(url: str = DEFAULT_URL, *, synchronous: str = "FULL") -> Store:
    """Open a database and bring it to the current schema.

    Args:
        url: `sqlite:///file.db`, `sqlite:///:memory:` (this process only), or `postgresql://user@host/database`.
        synchronous: SQLite only. `FULL`: every commit is on disk before it counts. `NORMAL`: a power loss, but not a
            killed process, may lose the last commits.

    Raises:
        ConfigError: The URL cannot be used, or PostgreSQL's driver is not installed.
        StoreUnreachable: The database cannot be opened.
        SchemaMismatch: Its schema is newer than this code, or it holds tables of something else.
    """
    return open_store(url, synchronous=synchronous)


def open_store(url: str, *, synchronous: str = "FULL") -> Store:
    """As `init_db`, for a URL that the configuration names."""
    engine = open_engine(url, synchronous=synchronous)
    try:
        verify(engine)
        upgrade(engine)
    except BaseException:
        # Connections that stay behind would be closed by the garbage collector, with a warning.
        engine.dispose()
        raise
    return Store(engine)


def open_scratch() -> Store:
    """A new database in memory; after the first it takes no migration."""
    engine = open_engine(_IN_MEMORY)
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.deserialize(_migrated())
    return Store(engine)


@functools.cache
def _migrated() -> bytes:
    engine = open_engine(_IN_MEMORY)
    try:
        upgrade(engine)
        with engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            return bytes(raw.serialize())
    finally:
        engine.dispose()


def current_revision(url: str) -> str | None:
    """The schema revision of a database, or None if it has none yet; changes nothing.

    Raises:
        ConfigError: The URL cannot be used.
        StoreUnreachable: The database cannot be opened.
    """
    engine = open_engine(url)
    verify(engine)
    try:
        return current(engine)
    finally:
        engine.dispose()

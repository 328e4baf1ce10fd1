"""Opening a database: URLs, drivers, SQLite's settings, and errors that say what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from durable_monty.errors import ConfigError, StoreUnreachable
from durable_monty.explain import mask_text

SYNCHRONOUS_LEVELS = ("EXTRA", "FULL", "NORMAL")
_BUSY_TIMEOUT_SECONDS = 30.0
# Without them a server that vanishes, or a network that swallows everything, is noticed after minutes or never.
_NOTICING = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Parameters of libpq: in seconds, the last one in milliseconds."""


def open_engine(url: str, *, synchronous: str = "FULL") -> Engine:
    """An engine for `url`, set up for durable writes. Nothing is connected yet.

    Args:
        url: `sqlite:///file.db`, `sqlite:///:memory:` (this process only) or `postgresql://...` (psycopg 3), where its
            query may hold libpq's parameters, such as `?connect_timeout=3`.
        synchronous: SQLite only: `FULL` syncs every commit; `NORMAL` may lose the last commits on power loss.

    Raises:
        ConfigError: The URL cannot be used, or its driver is not installed.
    """
    parsed = _parse(url)
    if synchronous not in SYNCHRONOUS_LEVELS:
        raise ConfigError(f"[store] synchronous is {synchronous!r}; it must be one of {', '.join(SYNCHRONOUS_LEVELS)}")
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, synchronous)
    return _postgresql(parsed)


def shown(url: URL) -> str:
    """A database's URL as people write it: without the password, and without the driver that was chosen for them."""
    return mask_text(url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True))


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        # Not `from error`: that one quotes the whole of it.
        raise ConfigError(
            f"[store] url is {mask_text(url)!r}, which is not a database URL; write for example "
            "'sqlite:///durable-monty.db' or 'postgresql://user@host/database'"
        ) from None
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"[store] url names the database system {backend!r}; durable-monty works on sqlite and postgresql"
        )
    return parsed


def _postgresql(url: URL) -> Engine:
    noticing = {name: value for name, value in _NOTICING.items() if name not in url.query}
    try:
        return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args=noticing)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError(
            f"opening {shown(url)!r}: the PostgreSQL driver psycopg is not installed; "
            "run `pip install 'durable-monty[postgres]'`"
        ) from error


def _sqlite(url: URL, synchronous: str) -> Engine:
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": _BUSY_TIMEOUT_SECONDS}}
    in_memory = url.database in (None, "", ":memory:")
    if in_memory:
        options["poolclass"] = StaticPool
    engine = create_engine(url.set(drivername="sqlite+pysqlite"), **options)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own transaction control begins too late (at the first write) and too weakly (deferred).
        connection.isolation_level = None
        cursor = connection.cursor()
        if not in_memory:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # Writers take the lock at once: upgrading a read lock later fails with SQLITE_BUSY without waiting.
        mode = "DEFERRED" if connection.get_execution_options().get("is_reader") else "IMMEDIATE"
        connection.connection.driver_connection.execute(f"BEGIN {mode}")

    return engine


def verify(engine: Engine) -> None:
    """Connect once.

    Raises:
        StoreUnreachable: The database cannot be opened; the message names it, without its password.
    """
    try:
        with engine.connect():
            pass
    except (DBAPIError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StoreUnreachable(f"opening the database {shown(engine.url)!r}: {cause}; {_remedy(engine)}") from error


def _remedy(engine: Engine) -> str:
    if engine.dialect.name == "sqlite":
        folder = Path(engine.url.database or ".").resolve().parent
        if not folder.is_dir():
            return f"create the folder {str(folder)!r}, or name another file in [store] url"
        return "check that the file is a SQLite database and that this user may write it and its folder"
    return "check that the server runs, and host, port, database, user and password in [store] url"

"""The databases that are measured, as they run in production, and what a bare commit costs on each."""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support import servers

BLOB = b"x" * 3000
"""About the size of a small workflow's state."""


@dataclass(frozen=True)
class Database:
    """One database system.

    Attributes:
        new_url: Makes an empty database and gives its URL.
        describe: Version and durability, for people.
    """

    name: str
    describe: str
    new_url: Callable[[], str]


@contextlib.contextmanager
def sqlite_database() -> Iterator[Database]:
    """SQLite in WAL mode with `synchronous=FULL`: every commit is synced."""
    with tempfile.TemporaryDirectory(prefix="durable-monty-bench-") as folder:
        yield Database(
            "SQLite",
            f"SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL",
            lambda: f"sqlite:///{Path(folder) / uuid.uuid4().hex}.db",
        )


@contextlib.contextmanager
def postgresql_database() -> Iterator[Database]:
    """A PostgreSQL server of its own with `fsync` and `synchronous_commit` on."""
    import psycopg

    with servers.postgresql(is_durable=True) as server:
        with psycopg.connect(server) as connection:
            version = connection.execute("SHOW server_version").fetchone()
            fsync = connection.execute("SHOW fsync").fetchone()
        assert version is not None
        assert fsync is not None
        yield Database(
            "PostgreSQL",
            f"PostgreSQL {version[0]}, fsync={fsync[0]}",
            lambda: servers.new_database(server, f"bench_{uuid.uuid4().hex}"),
        )


def commit_seconds(url: str, count: int = 300) -> float:
    """Median time of a transaction that inserts one row with a 3 kB blob, through the bare driver."""
    return _sqlite_commit(url, count) if url.startswith("sqlite") else _postgresql_commit(url, count)


def _sqlite_commit(url: str, count: int) -> float:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, data BLOB)")
        seconds = _median(lambda: connection.execute("INSERT INTO bare (data) VALUES (?)", (BLOB,)), count)
        connection.execute("DROP TABLE bare")
    return seconds


def _postgresql_commit(url: str, count: int) -> float:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bare (id bigserial PRIMARY KEY, data bytea)")
        seconds = _median(lambda: connection.execute("INSERT INTO bare (data) VALUES (%s)", (BLOB,)), count)
        connection.execute("DROP TABLE bare")
    return seconds


def _median(action: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        began_at = time.perf_counter()
        action()
        times.append(time.perf_counter() - began_at)
    return statistics.median(times)

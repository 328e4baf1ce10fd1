"""The databases that are measured, as they run in production, and what a bare commit costs on each."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import statistics
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from support import servers

_ROUNDS = 7
_COMMITS_PER_ROUND = 40
_RELEASE_SECONDS = 10.0
_CREATE = "CREATE TABLE bare_commit (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"
_DROP = "DROP TABLE bare_commit"


class Database(ABC):
    """One database system.

    Attributes:
        name: What people call it.
        describe: Its version and how durable its commits are.
    """

    name: str
    describe: str

    @abstractmethod
    def new_url(self) -> str:
        """Make an empty database; returns its URL."""

    @abstractmethod
    def copy(self, url: str) -> str:
        """Copy a database that nobody uses any more; returns the copy's URL."""

    @abstractmethod
    def used_bytes(self, url: str) -> int:
        """What a database takes: its pages, indexes and dead rows included, the write-ahead log not."""

    @abstractmethod
    def commit_seconds(self, url: str, *, text: str = "a small row", synchronous: str = "FULL") -> float:
        """Time of one bare commit: a transaction that inserts one row, through the driver, on one connection.

        Seven rounds of 40 such transactions; the median of the rounds' means.

        Args:
            text: What the row holds.
            synchronous: For SQLite.
        """


class Sqlite(Database):
    """SQLite in a folder of its own, as `init_db` opens it: write-ahead log, every commit synced."""

    name = "SQLite"
    describe = f"SQLite {sqlite3.sqlite_version}, journal_mode=WAL, synchronous=FULL"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_url(self) -> str:
        return f"sqlite:///{self._folder / uuid.uuid4().hex}.db"

    def copy(self, url: str) -> str:
        copied = self.new_url()
        source, target = _sqlite_file(url), _sqlite_file(copied)
        if source.with_name(source.name + "-wal").exists():
            raise RuntimeError(f"copying the database {source.name!r}: it has a write-ahead log, so it is still open")
        shutil.copyfile(source, target)
        return copied

    def used_bytes(self, url: str) -> int:
        with contextlib.closing(sqlite3.connect(_sqlite_file(url))) as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            return int(pages) * int(page_bytes)

    def commit_seconds(self, url: str, *, text: str = "a small row", synchronous: str = "FULL") -> float:
        with contextlib.closing(sqlite3.connect(_sqlite_file(url), isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute(_CREATE)
            insert = "INSERT INTO bare_commit VALUES (?, ?)"
            seconds = _seconds_per_call(lambda number: connection.execute(insert, (number, text)))
            connection.execute(_DROP)
        return seconds


class Postgresql(Database):
    """A PostgreSQL server of its own with its own defaults: every commit is synced."""

    name = "PostgreSQL"

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        with psycopg.connect(server_url) as connection:
            settings = ("server_version", "fsync", "synchronous_commit", "wal_sync_method")
            version, *rest = [connection.execute(f"SHOW {name}").fetchone()[0] for name in settings]
        self.describe = f"PostgreSQL {version}, " + ", ".join(
            f"{name}={value}" for name, value in zip(settings[1:], rest, strict=True)
        )

    def new_url(self) -> str:
        return servers.new_database(self._server_url, f"bench_{uuid.uuid4().hex}")

    def copy(self, url: str) -> str:
        source, copied = url.rpartition("/")[2], f"bench_{uuid.uuid4().hex}"
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            self._await_release(connection, source)
            connection.execute(f'CREATE DATABASE "{copied}" TEMPLATE "{source}"')
        return self._server_url.rpartition("/")[0] + f"/{copied}"

    def used_bytes(self, url: str) -> int:
        with psycopg.connect(url) as connection:
            return int(connection.execute("SELECT pg_database_size(current_database())").fetchone()[0])

    def commit_seconds(self, url: str, *, text: str = "a small row", synchronous: str = "FULL") -> float:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_CREATE)
            insert = "INSERT INTO bare_commit VALUES (%s, %s)"
            seconds = _seconds_per_call(lambda number: connection.execute(insert, (number, text)))
            connection.execute(_DROP)
        return seconds

    @staticmethod
    def _await_release(connection: psycopg.Connection, name: str) -> None:
        # The thread that listens for changes lets go of its connection a moment after its worker has ended.
        ends_at = time.monotonic() + _RELEASE_SECONDS
        users = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        while connection.execute(users, (name,)).fetchone() != (0,):
            if time.monotonic() > ends_at:
                raise RuntimeError(f"copying the database {name!r}: it is still in use; close its service first")
            time.sleep(0.02)


@contextlib.contextmanager
def sqlite_database() -> Iterator[Database]:
    """SQLite, in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="durable-monty-bench-") as folder:
        yield Sqlite(Path(folder))


@contextlib.contextmanager
def postgresql_database() -> Iterator[Database]:
    """A PostgreSQL server that is stopped and removed at the end."""
    with servers.postgresql(is_durable=True) as server_url:
        yield Postgresql(server_url)


def _sqlite_file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _seconds_per_call(action: Callable[[int], object]) -> float:
    means = []
    for start in range(0, _ROUNDS * _COMMITS_PER_ROUND, _COMMITS_PER_ROUND):
        began_at = time.perf_counter()
        for number in range(start, start + _COMMITS_PER_ROUND):
            action(number)
        means.append((time.perf_counter() - began_at) / _COMMITS_PER_ROUND)
    return statistics.median(means)

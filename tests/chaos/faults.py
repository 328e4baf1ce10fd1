"""The faults: each is brought about by `inject` and taken away by `heal`."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from chaos.installations import LEASE_SECONDS, Installation, Local, WithRQ
from support.supervised import Supervised

Place = TypeVar("Place", bound=Installation)
_CUT_EVERY_SECONDS = 0.1


class Fault(Protocol):
    """What a run does to an installation.

    Attributes:
        kind: What the figures call it.
        repeats: Whether a call that is at an executor meanwhile may run again.
        after_seconds: How long after it is healed it may still make calls run again.
        lasts_seconds: From when to when it is healed.
    """

    kind: str
    repeats: bool
    after_seconds: float
    lasts_seconds: tuple[float, float]

    def inject(self) -> None:
        """Bring it about."""

    def heal(self) -> None:
        """Take it away."""


@dataclass
class _On(Generic[Place]):
    """A fault of one installation."""

    on: Place

    kind: ClassVar[str]
    repeats: ClassVar[bool] = False
    after_seconds: ClassVar[float] = 0.0
    lasts_seconds: ClassVar[tuple[float, float]] = (0.0, 0.0)

    def inject(self) -> None:
        """Bring it about."""

    def heal(self) -> None:
        """Nothing is to be done: a supervisor does it."""


class WorkerKilled(_On[Installation]):
    """SIGKILL to a process that advances executions."""

    kind = "worker killed"

    def inject(self) -> None:
        self.on.kill(self.on.random.choice(self.on.workers))


class LocalWorkerKilled(WorkerKilled):
    """The same where it runs functions as well."""

    repeats = True


class RQKilled(_On[WithRQ]):
    """SIGKILL to an RQ worker, with its work horse or without, or to the horse alone."""

    kind = "rq worker killed"
    repeats = True

    def inject(self) -> None:
        how = self.on.random.choice(("process", "process tree", "work horse"))
        self.on.kill(self.on.random.choice(self.on.rq), how=how)


class RedisRestarted(_On[WithRQ]):
    """The Valkey server is killed and started again."""

    kind = "Redis restarted"
    repeats = True
    lasts_seconds = (0.0, 3.0)

    def inject(self) -> None:
        self.on.valkey.kill()

    def heal(self) -> None:
        self.on.valkey.start()


class PostgreSQLCrashed(_On[WithRQ]):
    """The database is stopped as by a crash, stays away for a while, and recovers."""

    kind = "PostgreSQL crashed"
    mode: ClassVar[str] = "immediate"
    lasts_seconds = (0.0, 5.0)

    def inject(self) -> None:
        assert self.on.postgresql is not None
        self.on.postgresql.stop(self.mode)

    def heal(self) -> None:
        assert self.on.postgresql is not None
        self.on.postgresql.start()


class PostgreSQLRestarted(PostgreSQLCrashed):
    """The database is stopped in an orderly way that ends every session."""

    kind = "PostgreSQL restarted"
    mode = "fast"


class SessionsTerminated(_On[WithRQ]):
    """From outside, sessions of the database are ended again and again, those that are at work first."""

    kind = "sessions terminated"
    lasts_seconds = (1.0, 3.0)

    def inject(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._terminate)
        self._thread.start()

    def heal(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _terminate(self) -> None:
        import psycopg

        with psycopg.connect(self.on.url, autocommit=True) as connection:
            while not self._is_over.wait(_CUT_EVERY_SECONDS):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    "AND backend_type = 'client backend' ORDER BY state = 'idle', random() LIMIT 2"
                )


class ConnectionsDropped(_On[WithRQ]):
    """Connections to the database break in mid-stream."""

    kind = "connections dropped"
    lasts_seconds = (1.0, 3.0)

    def inject(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._drop)
        self._thread.start()

    def heal(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _drop(self) -> None:
        while not self._is_over.wait(_CUT_EVERY_SECONDS):
            self.on.proxy.drop()


class AnswersLost(_On[WithRQ]):
    """Commits happen, and whoever asked for them is not told."""

    kind = "commits unknown"
    lasts_seconds = (2.0, 4.0)

    def inject(self) -> None:
        self.on.proxy.lose_answers(3)

    def heal(self) -> None:
        self.on.proxy.lose_answers(0)


class PostgreSQLDiskFull(_On[WithRQ]):
    """The disk of the database is full, its log's included; a server that has given up is started again."""

    kind = "PostgreSQL disk full"
    lasts_seconds = (2.0, 8.0)

    def inject(self) -> None:
        assert self.on.disk is not None
        self.on.disk.fill()

    def heal(self) -> None:
        assert self.on.disk is not None
        assert self.on.postgresql is not None
        self.on.disk.empty()
        if not self.on.postgresql.is_running():
            self.on.postgresql.start()


class SQLiteDiskFull(_On[Local]):
    """The disk of the database file is full."""

    kind = "SQLite disk full"
    repeats = True
    after_seconds = LEASE_SECONDS
    lasts_seconds = (2.0, 8.0)

    def inject(self) -> None:
        self.on.disk.fill()

    def heal(self) -> None:
        self.on.disk.empty()


class SQLiteLocked(_On[Local]):
    """Another process keeps a transaction open that locks the database."""

    kind = "SQLite locked"
    repeats = True
    after_seconds = LEASE_SECONDS
    lasts_seconds = (2.0, 8.0)
    _PROGRAM = (
        "import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE')\nprint('locked', flush=True)\nsys.stdin.read()\n"
    )

    def inject(self) -> None:
        command = [sys.executable, "-c", self._PROGRAM, str(self.on.database)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"locked\n"

    def heal(self) -> None:
        self._process.communicate()


class SQLiteLockedForLong(SQLiteLocked):
    """The same for longer than a writer waits, which is 30 seconds."""

    kind = "SQLite locked for more than 30 s"
    lasts_seconds = (32.0, 36.0)


class WorkerStopped(_On[Installation]):
    """SIGSTOP to a worker, and SIGCONT when its lease is long over."""

    kind = "worker stopped past its lease"
    lasts_seconds = (LEASE_SECONDS + 1.0, LEASE_SECONDS + 5.0)

    def inject(self) -> None:
        self._victim: Supervised = self.on.random.choice(self.on.workers)
        self._victim.signal(signal.SIGSTOP)

    def heal(self) -> None:
        self._victim.signal(signal.SIGCONT)


class LocalWorkerStopped(WorkerStopped):
    """The same where it runs functions as well."""

    repeats = True
    after_seconds = LEASE_SECONDS


class ClockOff(_On[WithRQ]):
    """The clock of one worker is an hour ahead or an hour late."""

    kind = "clock an hour off"
    lasts_seconds = (5.0, 12.0)

    def inject(self) -> None:
        self._victim = self.on.random.choice(self.on.workers)
        self._program = self._victim.program
        self._victim.program = self.on.shifted(self._program, self.on.random.choice((-3600, 3600)))
        self.on.kill(self._victim)

    def heal(self) -> None:
        self._victim.program = self._program
        self.on.kill(self._victim)


class RQClockOff(_On[WithRQ]):
    """The clock of one RQ worker is an hour ahead or an hour late: RQ itself may take its job for dead."""

    kind = "clock of an rq worker an hour off"
    repeats = True
    lasts_seconds = (5.0, 12.0)

    def inject(self) -> None:
        self._victim = self.on.random.choice(self.on.rq)
        self._program = self._victim.program
        self._victim.program = self.on.shifted(self._program, self.on.random.choice((-3600, 3600)))
        self.on.kill(self._victim, how="process tree")

    def heal(self) -> None:
        self._victim.program = self._program
        self.on.kill(self._victim, how="process tree")


class NetworkCut(_On[WithRQ]):
    """The cable to the other host, where a worker and an RQ worker run, is pulled, and plugged in again."""

    kind = "network cut"
    repeats = True
    # Until a connection that was cut has sent again what it had to send.
    after_seconds = 30.0
    lasts_seconds = (2.0, 15.0)

    def inject(self) -> None:
        assert self.on.host is not None
        self.on.host.cut()

    def heal(self) -> None:
        assert self.on.host is not None
        self.on.host.heal()


class NetworkCutForLong(NetworkCut):
    """The same for longer than a connection is given to answer."""

    kind = "network cut for more than 25 s"
    lasts_seconds = (26.0, 32.0)


def of_rq(on: WithRQ) -> list[Fault]:
    """Every fault of the first installation, those that cost little more often."""
    kinds: list[type[_On[WithRQ]]] = [
        *(RedisRestarted, PostgreSQLCrashed, PostgreSQLRestarted, SessionsTerminated, ConnectionsDropped),
        *(AnswersLost, AnswersLost, PostgreSQLDiskFull, ClockOff, RQClockOff, NetworkCut, NetworkCutForLong),
        *(RQKilled, RQKilled, RQKilled),
    ]
    return [*(kind(on) for kind in kinds), WorkerStopped(on), WorkerKilled(on), WorkerKilled(on)]


def of_local(on: Local) -> list[Fault]:
    """Every fault of the second installation."""
    return [
        *(SQLiteDiskFull(on), SQLiteDiskFull(on), SQLiteLocked(on), SQLiteLocked(on), SQLiteLockedForLong(on)),
        *(LocalWorkerStopped(on), LocalWorkerStopped(on), *(LocalWorkerKilled(on) for _ in range(5))),
    ]

"""A worker whose database does not answer waits for it, however long that takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from durable_monty import init_db
from durable_monty.bell import Bell
from durable_monty.config import Config
from durable_monty.loop import Loop
from durable_monty.runtime import Runtime

POLL_SECONDS = 1.0


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class RecordingBell(Bell):
    """Moves the clock instead of waiting, and notes for how long."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.waited_seconds: list[float] = []

    def wait(self, seen: int, timeout_seconds: float) -> bool:
        self.waited_seconds.append(timeout_seconds)
        self._clock.now += timeout_seconds
        return False


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bell(clock: Clock) -> RecordingBell:
    return RecordingBell(clock)


@pytest.fixture
def loop(tmp_path: Path, clock: Clock, bell: RecordingBell) -> Iterator[Loop]:
    """The loop of a worker whose lease is due, on a database that has just lost the table it is recorded in."""
    path = tmp_path / "away.db"
    runtime = Runtime(init_db(f"sqlite:///{path}", synchronous="NORMAL"), Config(), clock)
    runtime.bell = bell
    opened = Loop(runtime, None, "local", POLL_SECONDS)
    opened.tick()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE workers RENAME TO workers_elsewhere")
    clock.now = runtime.lease.renew_at + 1
    yield opened
    opened.close(0)
    runtime.interpreter.close()
    runtime.store.close()


def test_a_worker_whose_lease_is_due_waits_between_its_tries(loop: Loop, bell: RecordingBell) -> None:
    """A lease that cannot be renewed stays due: trying again at once would keep a processor busy and flood the server."""
    waits = []
    for _ in range(10):
        assert loop.tick() is False
        bell.waited_seconds.clear()
        loop.wait()
        waits.append(sum(bell.waited_seconds))
    assert min(waits) > 0
    assert max(waits) == pytest.approx(5.0)


def test_a_worker_outlives_any_number_of_failed_tries(loop: Loop) -> None:
    """An outage of two hours is some 1,500 tries."""
    for _ in range(1500):
        assert loop.tick() is False

"""A worker whose database does not answer waits for it, however long that takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_monty import OrchestratorService, Store, StoreUnreachable, Worker, init_db, remote
from durable_monty.bell import Bell
from durable_monty.config import Config
from durable_monty.hookspecs import hookimpl
from durable_monty.loop import Loop
from durable_monty.models import Accepted, Call, Capabilities, Job, Outcome, Refused
from durable_monty.runtime import Runtime
from support import functions as host
from support.workers import running

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


class Reluctant:
    """Runs each call when it is submitted; refuses every third one once, and gives a token for the others."""

    capabilities = Capabilities(max_in_flight=2, survives_restart=True, poll_interval_seconds=0.01)

    def __init__(self) -> None:
        self._refused: set[str] = set()
        self._outcomes: list[Outcome] = []

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        return [self._answer(call) for call in calls]

    @hookimpl
    def poll(self, jobs: Sequence[Job]) -> list[Outcome]:
        told, self._outcomes = self._outcomes, []
        return told

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None: ...

    def _answer(self, call: Call) -> Accepted | Refused:
        if call.call_id % 3 == 0 and call.job_id not in self._refused:
            self._refused.add(call.job_id)
            return Refused(call.job_id, "not now", 0.01)
        self._outcomes.append(Outcome(call.job_id, reply=remote.run(call.envelope)))
        return Accepted(call.job_id, f"token of {call.job_id}")


def lose_next(store: Store, method: str, monkeypatch: pytest.MonkeyPatch, *, is_done: bool) -> list[str]:
    """Let the next call of a method fail, done or not; returns a list that says when it has."""
    original = getattr(store, method)
    lost = []

    def once(*args: Any, **options: Any) -> None:
        monkeypatch.setattr(store, method, original)
        lost.append(method)
        if is_done:
            original(*args, **options)
        raise StoreUnreachable(f"{method}: the connection is lost")

    monkeypatch.setattr(store, method, once)
    return lost


@pytest.mark.parametrize("is_done", [False, True], ids=["not done", "done, answer lost"])
@pytest.mark.parametrize("method", ["commit", "claim_calls", "store_tokens", "put_back", "claim", "reattempt"])
def test_no_call_is_stranded_by_a_write_whose_answer_is_lost(
    lite_service: OrchestratorService, monkeypatch: pytest.MonkeyPatch, method: str, is_done: bool
) -> None:
    """What the database says is this worker's, and it never handed over, is found when the database answers again."""
    code = "from asyncio import gather\nawait gather(*[add(i, 1) for i in range(12)], always_fails_once())"
    execution_id = lite_service.start_execution(code, [host.add, host.always_fails_once])
    lost = lose_next(lite_service.runtime.store, method, monkeypatch, is_done=is_done)
    worker = Worker(lite_service, executor=Reluctant(), poll_interval=0.05)
    with running(worker):
        lite_service.wait(execution_id, 30)
    assert lost == [method]
    assert lite_service.get_result(execution_id) == [*range(1, 13), 2]

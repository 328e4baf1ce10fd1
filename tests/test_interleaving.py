"""Two workers on one execution, with the interleaving forced: one advances it, the other records nothing."""

from __future__ import annotations

import threading

import pytest

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from support import functions as host
from support.workers import DEADLINE_SECONDS, eventually, running

CODE = "a = await note(path, 'one')\nb = await note(path, 'two')\nawait note(path, 'three')\n[a, b]"
FIRST_TURNS = {"the first turn": 1, "a later turn": 2}


class Gate:
    """Holds a worker up between reading an execution and committing its turn, until it is opened.

    Args:
        number: Which commit of turns is held up.
    """

    def __init__(self, store, number):
        self._commit = store.commit
        self._left = number
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.stale = frozenset()
        store.commit = self.commit

    def commit(self, worker, settlements, turns, wake, now):
        self._left -= bool(turns)
        if self._left or self.reached.is_set():
            return self._commit(worker, settlements, turns, wake, now)
        self.reached.set()
        assert self.opened.wait(DEADLINE_SECONDS)
        result = self._commit(worker, settlements, turns, wake, now)
        self.stale = result.stale
        return result


@pytest.fixture
def services(database_url):
    config = Config.model_validate({"worker": {"lease_seconds": 0.6}})
    made = [OrchestratorService(init_db(database_url, synchronous="NORMAL"), config) for _ in range(2)]
    yield made
    for service in made:
        service.close()


@pytest.fixture(params=FIRST_TURNS)
def gate(request, services):
    return Gate(services[0].runtime.store, FIRST_TURNS[request.param])


def test_a_worker_whose_lease_lapsed_in_mid_turn_records_nothing_of_that_turn(services, gate, tmp_path):
    """It is held up after it has run the turn; the other takes over, runs the same turn and goes on to the end."""
    path = tmp_path / "notes.txt"
    slow, quick = services
    slow.start_execution(CODE, [host.note], {"path": str(path)}, execution_id="e")
    with running(Worker(slow, poll_interval=0.05)):
        assert gate.reached.wait(DEADLINE_SECONDS)
        try:
            with running(Worker(quick, poll_interval=0.05)):
                assert quick.wait("e", DEADLINE_SECONDS)["output"] == ["one", "two"]
            calls = quick.runtime.store.calls("e")
            version = quick.runtime.store.execution("e").version
        finally:
            gate.opened.set()
        # Another execution has gone through the worker that was held up: it is past the turn that came too late.
        slow.start_execution("await add(1, 2)", [host.add], execution_id="after")
        assert slow.wait("after", DEADLINE_SECONDS)["output"] == 3
    assert gate.stale == {"e"}
    assert slow.runtime.store.calls("e") == calls
    assert slow.runtime.store.execution("e").version == version
    noted = path.read_text().split()
    # What was in hand as the first worker lost its lease may run again: nothing else does.
    assert [noted.count(text) for text in ("two", "three")] == [1, 1]
    assert noted.count("one") <= 2


def test_a_worker_that_is_alive_is_not_disturbed_in_mid_turn(database_url, tmp_path):
    """It holds its claim while it is held up: the other finds nothing to do."""
    path = tmp_path / "notes.txt"
    slow, other = (OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config()) for _ in range(2))
    gate = Gate(slow.runtime.store, 1)
    slow.start_execution(CODE, [host.note], {"path": str(path)}, execution_id="e")
    with running(Worker(slow, poll_interval=0.05)):
        assert gate.reached.wait(DEADLINE_SECONDS)
        try:
            Worker(other, poll_interval=0.05).run(once=True)
            assert other.process_execution("e")["status"] in {"running", "scheduled"}
            assert other.runtime.store.calls("e") == []
            assert other.runtime.store.execution("e").version == 0
        finally:
            gate.opened.set()
        assert slow.wait("e", DEADLINE_SECONDS)["output"] == ["one", "two"]
    assert gate.stale == frozenset()
    assert path.read_text().split() == ["one", "two", "three"]
    for service in (slow, other):
        service.close()


def test_an_outcome_that_comes_in_mid_turn_is_delivered_by_the_next_one(services, tmp_path):
    """A call is ended by hand, through another service, while the turn of an earlier outcome is being recorded."""
    mine, theirs = services
    release, begun = tmp_path / "release", tmp_path / "begun"
    code = "from asyncio import gather\nawait gather(nap(0.05, 1), hold(begun, release), add(1, await add(1, 1)))"
    inputs = {"begun": str(begun), "release": str(release)}
    execution_id = mine.start_execution(code, [host.nap, host.hold, host.add], inputs)
    gate = Gate(mine.runtime.store, 2)
    with running(Worker(mine, poll_interval=0.05)):
        assert gate.reached.wait(DEADLINE_SECONDS)
        theirs.complete_call(execution_id, 1, 77)
        gate.opened.set()
        assert mine.wait(execution_id, DEADLINE_SECONDS)["output"] == [1, 77, 3]
        eventually(begun.exists)
        release.touch()
    places = [(call.batch, call.position) for call in mine.runtime.store.calls(execution_id)]
    assert None not in [item for place in places for item in place]
    assert len(set(places)) == len(places)

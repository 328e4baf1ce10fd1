"""What one worker holds in memory while others write to the same executions."""

from __future__ import annotations

import pytest

from durable_monty import OrchestratorService, Worker, codec
from durable_monty.config import Config
from durable_monty.errors import StoreUnreachable
from durable_monty.models import CallStatus, Failure
from durable_monty.records import NextAttempt, Settlement
from support import functions as host
from support.scripted import Scripted

FUNCTIONS = [host.identity, host.fail_until_third]

CODE = """
from asyncio import gather
async def two():
    return [await first(1), await second(2)]
await gather(two(), third(3))
"""


def first(i): ...
def second(i): ...
def third(i): ...


def outcome(call_id, value, attempt=1):
    return Settlement("it", call_id, attempt, CallStatus.COMPLETED, codec.dumps(value), 1.0)


class Process:
    """One of several on the same database."""

    def __init__(self, store):
        self.service = OrchestratorService(store, Config())
        self.service.runtime.has_worker = True
        self.service.runtime.lease.renew()
        self.engine = self.service.runtime.engine

    def settle(self, call_id, value, attempt=1):
        return self.engine.advance([outcome(call_id, value, attempt)])

    def result(self):
        while self.service.runtime.store.survey(self.service.runtime.lease.worker, 1e12).has_execution:
            self.engine.advance_due()
        return self.service.get_result("it")


@pytest.fixture
def processes(store):
    """Two; the first holds execution `it`, which waits for calls 0 (`third`) and 1 (`first`)."""
    both = [Process(store), Process(store)]
    both[0].service.start_execution(CODE, [first, second, third], execution_id="it", check=False)
    both[0].engine.advance_due()
    yield both
    for process in both:
        process.service.runtime.interpreter.close()


def fail(process, call_id, attempt):
    failure = Failure("lost", "Lost", "gone")
    process.engine.reattempt([NextAttempt("it", call_id, attempt, failure, 1.0, 1.0, 1)])


def test_the_holder_takes_the_outcome_of_an_attempt_that_another_worker_began(processes):
    holder, other = processes
    fail(other, 0, 1)
    holder.settle(0, "c", attempt=2)
    holder.settle(1, "a")
    holder.settle(2, "b")
    assert holder.result() == [["a", "b"], "c"]


def test_the_holder_does_not_keep_an_outcome_that_the_store_refused(processes):
    """It knows the first attempt only; the second has begun elsewhere, and its outcome is the one that counts."""
    holder, other = processes
    fail(other, 0, 1)
    holder.settle(0, "late", attempt=1)
    holder.settle(1, "a")
    holder.settle(2, "b")
    (call,) = [row for row in holder.service.runtime.store.calls("it") if row.call_id == 0]
    assert (call.status, call.batch) == ("pending", None)
    holder.settle(0, "c", attempt=2)
    assert holder.result() == [["a", "b"], "c"]


def test_of_the_outcomes_of_two_attempts_that_come_at_once_the_holder_takes_the_later_one(processes):
    """It knows the first attempt only, whose outcome comes first: neither may be taken for the other, or be forgotten."""
    holder, other = processes
    fail(other, 0, 1)
    advanced = holder.engine.advance([outcome(0, "late", 1), outcome(1, "a"), outcome(0, "c", 2)])
    assert {"it-0-1", "it-0-2"} <= advanced.settled
    (call,) = [row for row in holder.service.runtime.store.calls("it") if row.call_id == 0]
    assert (call.status, call.attempt, call.outcome) == ("completed", 2, codec.dumps("c"))
    holder.settle(2, "b")
    assert holder.result() == [["a", "b"], "c"]


@pytest.mark.parametrize(("cleanup", "status"), [("pass", "cancelled"), ("await third(9)", "waiting")])
@pytest.mark.parametrize("function", ["first", "second"])
def test_a_turn_that_cancels_an_attempt_which_is_over_is_void(store, monkeypatch, cleanup, status, function):
    """Another worker begins the next attempt while the holder runs the turn; that attempt must not outlive the turn."""
    holder, other = Process(store), Process(store)
    head = "from asyncio import gather\nfrom durable_monty.flow import timeout\n"
    code = f"{head}try:\n    await timeout(gather(first(1), second(2)), 1000)\nfinally:\n    {cleanup}"
    holder.service.start_execution(code, [first, second, third], execution_id="it", check=False)
    holder.engine.advance_due()
    holder.service.cancel("it", "enough")
    (over,) = [call.call_id for call in store.calls("it") if call.function.endswith(function)]
    commit, failed = store.commit, []

    def overtaken(*arguments):
        if not failed:
            failed.append(0)
            fail(other, over, 1)
        return commit(*arguments)

    monkeypatch.setattr(store, "commit", overtaken)
    while store.survey(holder.service.runtime.lease.worker, holder.service.runtime.clock()).has_execution:
        holder.engine.advance_due()
    assert store.execution("it").status == status
    calls = {call.call_id: call for call in store.calls("it")}
    assert (calls[over].status, calls[over].attempt) == ("cancelled", 2)
    assert [call.function for call in calls.values() if not call.status.is_terminal] == [
        third.__module__ + ".third"
    ] * (status == "waiting")


def test_an_outcome_that_a_former_holder_records_reaches_the_holder(processes):
    """A worker that was stopped past its lease still takes itself for the holder."""
    former, heir = processes
    former_id = former.service.runtime.lease.worker
    (lease_until,) = [until for who, until in former.service.runtime.store.list_workers() if who.id == former_id]
    former.service.runtime.store.take_over(former_id, lease_until, heir.service.runtime.lease.worker, 1.0)
    heir.engine.advance_due()
    former.settle(0, "c")
    assert heir.service.runtime.store.survey(heir.service.runtime.lease.worker, 1e12).has_execution
    heir.engine.advance_due()
    heir.settle(1, "a")
    heir.settle(2, "b")
    assert heir.result() == [["a", "b"], "c"]


@pytest.mark.parametrize("method", ["claim_calls", "commit", "claim", "reattempt", "register"])
def test_calls_that_were_claimed_in_a_commit_of_unknown_outcome_are_not_forgotten(store, monkeypatch, method):
    """The connection broke between the commit and the answer, and the worker lives on."""
    service = OrchestratorService(store, Config())
    execution_id = service.start_execution("[await identity(1), await fail_until_third()]", FUNCTIONS)
    if method == "claim_calls":
        service.process_execution(execution_id)
    broken = []
    original = getattr(store, method)

    def breaking(*args, **kwargs):
        answer = original(*args, **kwargs)
        if len(broken) < 3:
            broken.append(method)
            raise StoreUnreachable("the answer was lost")
        return answer

    monkeypatch.setattr(store, method, breaking)
    Worker(service, Scripted()).run(until_complete=True)
    assert len(broken) == 3
    assert service.get_result(execution_id) == [1, 3]
    service.close()


def test_turns_are_not_half_recorded_if_the_database_goes_away_between_two_of_them(store, monkeypatch):
    """The first of several turns has run; the second cannot read its snapshot."""
    process = Process(store)
    for name in ("it", "other"):
        process.service.start_execution("await second(await first(1))", [first, second], execution_id=name, check=False)
    process.engine.advance_due()
    outcomes = [Settlement(name, 0, 1, CallStatus.COMPLETED, "1", 1.0) for name in ("it", "other")]
    run, turns = process.engine._turns.run, []

    def broken(*arguments):
        turns.append(arguments)
        if len(turns) == 2:
            raise StoreUnreachable("gone")
        return run(*arguments)

    monkeypatch.setattr(process.engine._turns, "run", broken)
    with pytest.raises(StoreUnreachable):
        process.engine.advance(outcomes)
    process.engine.advance(outcomes)
    assert [len(store.calls(name)) for name in ("it", "other")] == [2, 2]
    process.service.close()

"""Races, timeouts and completion in order: who wins, what becomes of the losers, and that a rebuild sees the same."""

from __future__ import annotations

import threading

import pytest

from durable_monty import Worker
from durable_monty.models import CallStatus
from durable_monty.records import Settlement
from support import functions as host

FLOW = "from durable_monty.flow import race, timeout, settle, map, as_completed, signal, saga, uuid4, sleep_until\n"
PIPELINE = """
from asyncio import gather
from durable_monty.flow import {helper}
async def pipeline(i):
    a = await first(i)
    b = await second(a)
    return await third(b)
"""


@pytest.fixture
def by_hand(lite_service):
    """Starts an execution whose calls are ended by hand; no executor runs anything."""

    class ByHand:
        service = lite_service

        def start(self, code, functions, inputs=None):
            self.id = lite_service.start_execution(code, functions, inputs)
            lite_service.process_execution(self.id)
            return self

        def open(self):
            """The open calls, by the name of their function and their first argument."""
            return {
                (call.function_name.rpartition(".")[2], *call.args): call.call_id
                for call in lite_service.get_pending_calls(self.id)
            }

        def complete(self, *call, value=None):
            lite_service.complete_call(self.id, self.open()[call], value)
            lite_service.process_execution(self.id)

        def statuses(self):
            rows = lite_service.runtime.store.calls(self.id)
            return [(row.function.rpartition(".")[2], row.status.value) for row in rows]

        @property
        def status(self):
            return lite_service.get_execution(self.id)["status"]

        @property
        def result(self):
            return lite_service.get_result(self.id)

    return ByHand()


def one(i): ...
def first(i): ...
def second(i): ...
def third(i): ...
def cleanup(i): ...


def test_the_losers_of_a_race_are_cancelled(by_hand):
    run = by_hand.start(
        f"{FLOW}r = await race(first(1), second(2))\nr2 = await third(3)\n[r, r2]", [first, second, third]
    )
    run.complete("second", 2, value="two")
    assert run.open().keys() == {("third", 3)}
    assert ("first", "cancelled") in run.statuses()
    run.complete("third", 3, value="three")
    assert run.result == [[1, "two"], "three"] or run.result == [(1, "two"), "three"]


def test_an_exception_wins_a_race_as_well(by_hand):
    run = by_hand.start(
        f"{FLOW}try:\n    await race(first(1), second(2))\nexcept ValueError as e:\n    out = str(e)\nout",
        [first, second],
    )
    by_hand.service.fail_call(run.id, run.open()["first", 1], ValueError("no"))
    by_hand.service.process_execution(run.id)
    assert run.result == "no"


def test_a_pipeline_that_lost_makes_no_further_call(by_hand):
    """What it waits for is cancelled wherever it stands, also when the race began in an earlier turn."""
    code = PIPELINE.format(helper="race") + "w = await race(pipeline(1), pipeline(2))\nawait cleanup(0)\nw[0]"
    run = by_hand.start(code, [first, second, third, cleanup])
    run.complete("first", 1, value=1)
    run.complete("first", 2, value=2)
    run.complete("second", 2, value=2)
    assert run.open().keys() == {("second", 1), ("third", 2)}
    run.complete("third", 2, value="done")
    assert run.open().keys() == {("cleanup", 0)}
    assert run.statuses().count(("second", "cancelled")) == 1
    run.complete("cleanup", 0)
    assert run.result == 1


def test_a_loser_whose_outcome_came_with_the_winners_goes_no_further(by_hand):
    """Both outcomes are there when the turn begins; the loser's is in the log, and its next call is cancelled."""
    code = PIPELINE.format(helper="race") + "w = await race(pipeline(1), one(9))\nawait cleanup(0)\nw[0]"
    run = by_hand.start(code, [first, second, third, one, cleanup])
    service = by_hand.service
    calls = run.open()
    service.complete_call(run.id, calls["one", 9], "fast")
    service.complete_call(run.id, calls["first", 1], 1)
    service.process_execution(run.id)
    assert run.open().keys() == {("cleanup", 0)}
    assert ("second", "cancelled") in run.statuses()
    run.complete("cleanup", 0)
    assert run.result == 1


def test_losers_clean_up(by_hand):
    code = f"""{FLOW}
async def careful():
    try:
        await first(1)
    finally:
        await cleanup(1)
        await cleanup(2)
w = await race(careful(), second(2))
await third(3)
w[1]"""
    run = by_hand.start(code, [first, second, third, cleanup])
    run.complete("second", 2, value="won")
    assert run.open().keys() == {("cleanup", 1), ("third", 3)}
    run.complete("cleanup", 1)
    assert run.open().keys() == {("cleanup", 2), ("third", 3)}
    run.complete("cleanup", 2)
    run.complete("third", 3)
    assert run.result == "won"


def test_races_inside_a_gather_do_not_disturb_each_other(by_hand):
    """Each branch is a task of its own; a race of one must not cancel the calls of another."""
    code = PIPELINE.format(helper="timeout") + (
        "async def branch(i):\n"
        "    x = await one(i)\n"
        "    return await timeout(pipeline(x), 1000)\n"
        "await gather(*[branch(i) for i in range(3)])"
    )
    run = by_hand.start(code, [first, second, third, one])
    for i in range(3):
        run.complete("one", i, value=i)
    for i in range(3):
        run.complete("first", i, value=i)
    run.complete("second", 1, value=1)
    run.complete("third", 1, value="b")
    assert run.open().keys() == {("second", 0), ("second", 2)}
    for i in (0, 2):
        run.complete("second", i, value=i)
        run.complete("third", i, value="ac"[i // 2])
    assert run.result == ["a", "b", "c"]
    assert [name for name, status in run.statuses() if status == "cancelled"] == ["sleep"] * 3


@pytest.mark.parametrize(
    "how", ["import asyncio\n", "import asyncio as aio\n", "from asyncio import gather as g, sleep\n"]
)
def test_gather_is_followed_however_it_is_imported(by_hand, how):
    call = {"import asyncio\n": "asyncio.gather", "import asyncio as aio\n": "aio.gather"}.get(how, "g")
    code = f"""{how}from durable_monty.flow import race
async def branch(i):
    async def inner():
        await first(i)
        return await second(i)
    return (await race(inner(), third(i)))[1]
await {call}(branch(1), branch(2))"""
    run = by_hand.start(code, [first, second, third])
    run.complete("first", 2)
    run.complete("third", 1, value="one")
    assert run.open().keys() == {("second", 2), ("third", 2)}
    run.complete("second", 2, value="two")
    assert run.result == ["one", "two"]


def test_nested_races_cancel_what_is_inside(by_hand):
    code = PIPELINE.format(helper="race, timeout") + (
        "async def inner():\n    return await timeout(pipeline(1), 500)\nw = await race(inner(), one(2))\nawait cleanup(0)\nw"
    )
    run = by_hand.start(code, [first, second, third, one, cleanup])
    run.complete("first", 1, value=1)
    run.complete("one", 2, value="out")
    assert run.open().keys() == {("cleanup", 0)}
    assert sorted(run.statuses())[-2:] == [("second", "cancelled"), ("sleep", "cancelled")]


@pytest.mark.parametrize(
    "inside",
    [
        "race(pipeline(1), pipeline(2))",
        "timeout(race(pipeline(1), pipeline(2)), 800)",
        "settle(timeout(pipeline(1), 800))",
        "gather(pipeline(1), pipeline(2))",
        "settle(pipeline(1), pipeline(2))",
    ],
)
def test_a_race_that_is_written_inside_another_is_given_up_with_it(by_hand, inside):
    """It begins in the other's lane, wherever its coroutine was made."""
    code = PIPELINE.format(helper="race, timeout, settle") + f"w = await race({inside}, one(9))\nawait cleanup(0)\nw"
    run = by_hand.start(code, [first, second, third, one, cleanup])
    run.complete("first", 1, value=1)
    run.complete("one", 9, value="out")
    assert run.open().keys() == {("cleanup", 0)}
    run.complete("cleanup", 0)
    assert tuple(run.result) == (1, "out")


def test_a_signal_is_not_lost_to_a_wait_that_was_given_up(by_hand):
    code = f"{FLOW}out = []\nfor i in range(2):\n    w = await race(timeout(race(signal('a'), signal('b')), 900), first(i))\n    out.append(w[1])\nout"
    run = by_hand.start(code, [first])
    run.complete("first", 0, value="nobody")
    by_hand.service.signal(run.id, "b", "for the second")
    by_hand.service.process_execution(run.id)
    assert run.result == ["nobody", (1, "for the second")]


def test_a_call_made_before_the_race_is_in_it(by_hand):
    code = f"{FLOW}a = first(1)\nb = second(2)\nx = await third(3)\nw = await race(a, b)\nawait cleanup(0)\nw"
    run = by_hand.start(code, [first, second, third, cleanup])
    run.complete("third", 3)
    run.complete("first", 1, value="won")
    assert run.open().keys() == {("cleanup", 0)}
    assert ("second", "cancelled") in run.statuses()


@pytest.mark.parametrize(
    "awaitable",
    [
        "gather(first(1), first(2))",
        "timeout(first(1), 500)",
        "race(first(1), pipeline(2))",
        "gather(pipeline(1), first(2))",
    ],
)
def test_what_is_built_outside_a_race_runs_in_it(by_hand, awaitable):
    """The arguments of an argument are evaluated before the race begins; they lose with it all the same."""
    code = PIPELINE.format(helper="race, timeout") + f"w = await race({awaitable}, one(9))\nawait cleanup(0)\nw[0]"
    run = by_hand.start(code, [first, second, third, one, cleanup])
    run.complete("one", 9)
    assert run.open().keys() == {("cleanup", 0)}
    run.complete("cleanup", 0)
    assert run.result == 1


CAREFUL = """
async def careful(i):
    try:
        await first(i)
    finally:
        await cleanup(i)
        await third(i)
"""


def test_losers_of_a_race_within_a_race_clean_up_all_of_them(by_hand):
    code = f"{FLOW}{CAREFUL}w = await race(race(careful(1), careful(2)), one(9))\nawait second(0)\nw[0]"
    run = by_hand.start(code, [first, second, third, one, cleanup])
    run.complete("one", 9)
    assert run.open().keys() == {("cleanup", 1), ("cleanup", 2), ("second", 0)}
    run.complete("cleanup", 2)
    assert run.open().keys() == {("cleanup", 1), ("third", 2), ("second", 0)}


def test_every_lane_of_a_race_cleans_up_when_the_execution_is_cancelled(by_hand):
    code = f"{FLOW}{CAREFUL}async def held():\n    try:\n        await race(careful(1), careful(2))\n    finally:\n        await second(0)\nawait held()"
    run = by_hand.start(code, [first, second, third, cleanup])
    by_hand.service.cancel(run.id)
    by_hand.service.process_execution(run.id)
    assert run.open().keys() == {("cleanup", 1), ("cleanup", 2)}
    run.complete("cleanup", 1)
    run.complete("third", 1)
    assert run.open().keys() == {("cleanup", 2), ("second", 0)}


def test_a_loser_that_would_go_on_into_another_race_goes_no_further(by_hand):
    code = f"""{FLOW}
async def loser():
    x = await first(1)
    try:
        return await race(second(1), second(2))
    finally:
        await cleanup(1)
w = await race(loser(), one(9))
await third(0)
w[0]"""
    run = by_hand.start(code, [first, second, third, one, cleanup])
    calls = run.open()
    by_hand.service.complete_call(run.id, calls["one", 9], None)
    by_hand.service.complete_call(run.id, calls["first", 1], None)
    by_hand.service.process_execution(run.id)
    assert run.open().keys() == {("cleanup", 1), ("third", 0)}


def test_a_race_among_what_is_taken_as_it_comes_does_not_end_the_taking(by_hand):
    """The task that takes the results is not in the race that one of the others has just begun."""
    code = (
        f"{FLOW}out = []\nfor aw in as_completed([third(3), race(first(1), second(2))]):\n    out.append(await aw)\nout"
    )
    run = by_hand.start(code, [first, second, third])
    run.complete("first", 1, value="a")
    run.complete("third", 3, value="b")
    assert [list(run.result[0]), run.result[1]] == [[0, "a"], "b"]


def test_calls_of_a_race_that_began_in_a_turn_of_its_own_are_known_to_others(lite_service):
    """The turn that begins the race announces nothing; which calls are in it must not be lost with the process."""
    code = f"""{FLOW}from asyncio import gather
a = first(1)
b = second(2)
async def beside():
    await one(5)
    await cleanup(5)
async def racing():
    await third(3)
    return await race(a, b)
await gather(racing(), beside())"""
    execution_id = lite_service.start_execution(code, [first, second, third, one, cleanup])
    runtime = lite_service.runtime
    runtime.has_worker = True

    def complete(name):
        (call,) = [row for row in runtime.store.calls(execution_id) if row.function.endswith(f".{name}")]
        runtime.engine.advance([Settlement(execution_id, call.call_id, 1, CallStatus.COMPLETED, "null", 1.0)])

    runtime.engine.advance_due()
    for name in ("third", "one"):
        complete(name)
    runtime.engine.release_all()
    complete("first")
    statuses = {row.function.rpartition(".")[2]: row.status for row in runtime.store.calls(execution_id)}
    assert statuses["second"] == "cancelled"


def test_a_timeout_cancels_what_took_too_long(service):
    code = f"{FLOW}try:\n    await timeout(nap(60), 0.05)\nexcept TimeoutError as e:\n    out = str(e)\nout"
    execution_id = service.start_execution(code, [host.nap])
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == "not done within 0.05 s"
    (call,) = [row for row in service.runtime.store.calls(execution_id) if row.kind == "function"]
    assert call.status == "cancelled"


def test_results_are_taken_as_they_come(by_hand):
    code = f"{FLOW}out = []\nfor aw in as_completed([first(1), first(2), first(3)]):\n    out.append(await aw)\nout"
    run = by_hand.start(code, [first])
    for i in (3, 1, 2):
        run.complete("first", i, value=10 * i)
    assert run.result == [30, 10, 20]


def test_coroutines_are_taken_as_they_come(by_hand):
    code = PIPELINE.format(helper="as_completed") + (
        "out = []\nfor aw in as_completed([pipeline(1), pipeline(2)]):\n    out.append(await aw)\n    await one(out[-1])\nout"
    )
    run = by_hand.start(code, [first, second, third, one])
    for i in (2, 1):
        run.complete("first", i, value=i)
        run.complete("second", i, value=i)
        run.complete("third", i, value=i)
        run.complete("one", i)
    assert run.result == [2, 1]


def test_a_failure_among_those_that_are_taken_as_they_come_is_raised_in_its_place(by_hand):
    code = (
        f"{FLOW}out = []\nfor aw in as_completed([first(1), second(2)]):\n    try:\n        out.append(await aw)\n"
        "    except ValueError as e:\n        out.append(str(e))\nout"
    )
    run = by_hand.start(code, [first, second])
    by_hand.service.fail_call(run.id, run.open()["second", 2], ValueError("bad"))
    by_hand.service.process_execution(run.id)
    run.complete("first", 1, value=1)
    assert run.result == ["bad", 1]


def test_a_thousand_results_are_taken_as_they_come(lite_service):
    code = f"{FLOW}total = 0\nfor aw in as_completed([add(i, 0) for i in range(1000)]):\n    total += await aw\ntotal"
    execution_id = lite_service.start_execution(code, [host.add])
    Worker(lite_service).run(until_complete=True)
    assert lite_service.get_result(execution_id) == sum(range(1000))


SHAPES = {
    "race": "w = await race(pipeline(1), pipeline(2))\nawait one(0)\nw",
    "timeout": "x = await timeout(pipeline(1), 900)\ny = await settle(timeout(first(5), 900), first(6))\n[x, y]",
    "as_completed": "out = []\nfor aw in as_completed([pipeline(i) for i in range(3)]):\n    out.append(await aw)\nout",
    "gather": "await gather(*[timeout(pipeline(i), 900) for i in range(3)])",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_execution_with_races_can_be_rebuilt_at_every_step(by_hand, shape):
    """The snapshot is thrown away before every turn: the log alone must lead to the same place."""
    code = PIPELINE.format(helper="race, timeout, settle, as_completed") + SHAPES[shape]
    run = by_hand.start(code, [first, second, third, one])
    service = by_hand.service
    with_snapshot = []
    for is_rebuilt in (False, True):
        run = by_hand.start(code, [first, second, third, one])
        for _ in range(50):
            calls = run.open()
            if not calls:
                break
            key = max(calls)
            if is_rebuilt:
                with service.runtime.store._connections.write() as connection:
                    connection.exec_driver_sql("DELETE FROM snapshots")
            run.complete(*key, value=key[1])
        assert run.status == "completed"
        with_snapshot.append((run.result, run.statuses()))
    assert with_snapshot[0] == with_snapshot[1]
    assert "rebuilt" in service.get_execution(run.id)["note"]


def test_helpers_under_one_worker_thread_and_threads_of_users(lite_service):
    """Many races at once, for real: nothing is lost and nobody waits for ever."""
    code = f"{FLOW}from asyncio import gather\nsum(await gather(*[timeout(add(i, 1), 60) for i in range(200)]))"
    ids = [lite_service.start_execution(code, [host.add]) for _ in range(3)]
    worker = Worker(lite_service)
    thread = threading.Thread(target=lambda: worker.run(until_complete=True))
    thread.start()
    for execution_id in ids:
        lite_service.wait(execution_id, 60)
        assert lite_service.get_result(execution_id) == sum(range(1, 201))
    worker.stop()
    thread.join()

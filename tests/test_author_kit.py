"""The kit for authors: virtual time, stand-ins, faults, signals, restarts, and what it says when a test is wrong."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

import pytest

from durable_monty import ExecutionFailed, Failure, Retry, current_call, function, workflow
from durable_monty.flow import (
    as_completed,
    child,
    emit,
    publish,
    signal,
    sleep_until,
    start_child,
)
from durable_monty.testing import WorkflowBlocked, WorkflowTest
from durable_monty.testing import workflow_test as workflow_test

DAY = 86_400
MONTH = 30 * DAY


@function(retry=Retry(attempts=3, first_delay_seconds=60, max_delay_seconds=600, jitter=0))
def charge(customer: str, cents: int) -> str:
    raise AssertionError("a test charges nobody")


@function(timeout_seconds=10)
async def look_up(name: str) -> dt.date:
    return dt.date(2000, 1, len(name))


@function(executor="gpu")
def render(page: int) -> int:
    return page


@function(heartbeat_seconds=20, retry=Retry(attempts=3, jitter=0))
def copy(pages: int) -> int:
    call = current_call()
    call.heartbeat(pages // 2)
    if call.attempt == 1:
        raise OSError("the disk is full")
    return int(call.progress or 0)


@workflow
async def subscription(customer: str, months: int) -> list[str]:
    receipts = []
    for month in range(months):
        receipts.append(await charge(customer, 100))
        publish("paid", month + 1)
        await asyncio.sleep(30 * 86_400)
    return receipts


@workflow
async def approval(days: float) -> object:
    try:
        return await signal("approved", timeout_seconds=days * 86_400)
    except TimeoutError:
        return "too late"


@workflow
async def born(name: str) -> dt.date:
    return await look_up(name)


def test_a_year_of_a_subscription_takes_moments(workflow_test):
    workflow_test.replace(charge, lambda customer, cents: f"{customer}: {cents}")
    begun = time.monotonic()
    receipts = workflow_test.run(subscription, {"customer": "ada", "months": 12})
    assert receipts == ["ada: 100"] * 12
    assert workflow_test.clock.elapsed_seconds == 12 * MONTH
    assert time.monotonic() - begun < MONTH
    assert [made.at.month for made in workflow_test.calls][:3] == [1, 1, 3]
    assert workflow_test.published("paid") == 12


@pytest.mark.parametrize("name", [charge, "charge", "shop", "test_author_kit.charge"])
def test_a_function_is_named_by_itself_its_path_or_its_name(name):
    name = charge.path if name == "test_author_kit.charge" else name
    if name == "shop":
        with pytest.raises(ExecutionFailed, match="charges nobody"), WorkflowTest({name: lambda c, n: "ok"}) as t:
            t.run(subscription, {"customer": "ada", "months": 1})
    else:
        with WorkflowTest({name: lambda c, n: "ok"}) as t:
            assert t.run(subscription, {"customer": "ada", "months": 1}) == ["ok"]


def test_stand_ins_may_be_async_and_know_their_call():
    async def stand_in(customer, cents):
        await asyncio.sleep(0)
        return current_call().idempotency_key

    with WorkflowTest({charge: stand_in}) as t:
        assert t.run(subscription, {"customer": "a", "months": 1}, execution_id="sub") == ["sub-0"]


def test_stand_ins_get_what_the_real_annotations_say(workflow_test):
    seen = []
    workflow_test.replace(look_up, lambda name: seen.append(name) or dt.date(1990, 1, 1))
    assert workflow_test.run(born, {"name": "x"}) == dt.date(1990, 1, 1)
    assert seen == ["x"]


def test_what_nothing_stands_in_for_is_run_for_real(workflow_test):
    assert workflow_test.run(born, {"name": "abc"}) == dt.date(2000, 1, 3)


def test_a_strict_test_runs_nothing_for_real():
    with WorkflowTest(strict=True) as t, pytest.raises(ExecutionFailed, match="nothing stands in for it"):
        t.run(born, {"name": "abc"})


def test_a_stand_in_is_there_for_the_call_only(workflow_test):
    workflow_test.replace(look_up, lambda name: dt.date(1990, 1, 1))
    workflow_test.run(born, {"name": "x"})
    assert asyncio.run(look_up("abc")) == dt.date(2000, 1, 3)


def test_a_stand_in_that_cannot_be_called_is_refused(workflow_test):
    with pytest.raises(TypeError, match="'receipt' is not a function"):
        workflow_test.replace(charge, "receipt")


def test_calls_for_any_executor_are_run_here(workflow_test):
    code = "from durable_monty.flow import options\nawait options(render, executor='tpu')(await render(2))"
    assert workflow_test.run(code, external_functions=[render]) == 2


def test_plain_source_may_call_what_the_test_names():
    def price(item: str) -> int:
        return 3

    with WorkflowTest({"price": price}) as t:
        assert t.run("await price(item)", {"item": "tea"}) == 3
        assert [(made.function, made.args, made.value) for made in t.calls] == [("price", ("tea",), 3)]


def test_a_fault_is_retried_after_its_delay(workflow_test):
    workflow_test.replace(charge, lambda customer, cents: "ok")
    workflow_test.fail(charge, nth=1, error=ConnectionError("down"), times=2)
    assert workflow_test.run(subscription, {"customer": "a", "months": 1}) == ["ok"]
    assert [(made.attempt, made.error) for made in workflow_test.calls] == [
        (1, "ConnectionError: down"),
        (2, "ConnectionError: down"),
        (3, None),
    ]
    first = workflow_test.calls[0].at
    assert [(made.at - first).total_seconds() for made in workflow_test.calls] == [0, 60, 180]


def test_a_fault_beyond_the_last_attempt_reaches_the_workflow(workflow_test):
    workflow_test.fail("charge", error=OSError, times=3)
    with pytest.raises(ExecutionFailed, match="OSError"):
        workflow_test.run(subscription, {"customer": "a", "months": 1})


def test_a_machine_that_is_lost_does_not_spend_the_attempts(workflow_test):
    workflow_test.replace(charge, lambda customer, cents: "ok")
    workflow_test.fail(charge, error=Failure("lost", "Lost", "the machine is gone"), times=5)
    assert workflow_test.run(subscription, {"customer": "a", "months": 1}) == ["ok"]
    assert len(workflow_test.calls_of(charge)) == 6


def test_a_fault_that_never_comes_about_fails_the_test():
    t = WorkflowTest({charge: lambda customer, cents: "ok"})
    with t as entered:
        entered.fail("charge", nth=1)
        entered.run(subscription, {"customer": "a", "months": 1})
    t = WorkflowTest({charge: lambda customer, cents: "ok"})
    t.fail("charge", nth=3)
    t.run(subscription, {"customer": "a", "months": 1})
    with pytest.raises(AssertionError, match="'charge' was to fail in run 3, it was run 1 times"):
        t.__exit__(None)


@pytest.mark.parametrize(("nth", "times"), [(0, 1), (1, 0), (-1, 1)])
def test_a_fault_that_cannot_be_is_refused(workflow_test, nth, times):
    with pytest.raises(ValueError, match="counted from 1"):
        workflow_test.fail(charge, nth=nth, times=times)


def test_a_fault_for_a_run_that_is_over_is_refused(workflow_test):
    workflow_test.run(born, {"name": "x"})
    with pytest.raises(ValueError, match="has been run 1 times already"):
        workflow_test.fail(look_up, nth=1)


def test_a_function_takes_virtual_time(workflow_test):
    workflow_test.takes(look_up, 9.5)
    workflow_test.run(born, {"name": "x"})
    assert workflow_test.clock.elapsed_seconds == 9.5


def test_a_function_that_takes_too_long_times_out_at_its_timeout(workflow_test):
    workflow_test.takes(look_up, 3600)
    with pytest.raises(ExecutionFailed, match="ran longer than 10"):
        workflow_test.run(born, {"name": "x"})
    assert workflow_test.clock.elapsed_seconds == 10


def test_the_loser_of_a_race_is_cancelled_and_not_run():
    ran = []
    code = "from durable_monty.flow import race\nawait race(slow(1), quick(2))"

    def slow(i: int) -> None:
        ran.append(i)

    def quick(i: int) -> int:
        return i

    with WorkflowTest({"slow": slow, "quick": quick}) as t:
        t.takes("slow", 3600)
        t.takes("quick", 60)
        assert t.run(code) == (1, 2)
        t.clock.advance(days=1)
        assert [(made.function, made.status) for made in t.calls] == [("slow", "cancelled"), ("quick", "completed")]
    assert ran == []


def test_a_signal_comes_at_its_time(workflow_test):
    workflow_test.signal("approved", "ada", after_seconds=3 * DAY)
    assert workflow_test.run(approval, {"days": 7}) == "ada"
    assert workflow_test.clock.elapsed_seconds == 3 * DAY


def test_a_signal_that_comes_too_late_is_a_timeout(workflow_test):
    workflow_test.signal("approved", "ada", after_seconds=8 * DAY)
    assert workflow_test.run(approval, {"days": 7}) == "too late"
    assert workflow_test.clock.elapsed_seconds == 7 * DAY


def test_a_signal_before_the_start_is_kept(workflow_test):
    workflow_test.signal("approved", "early")
    assert workflow_test.run(approval, {"days": 7}) == "early"
    assert workflow_test.clock.elapsed_seconds == 0


def test_signals_are_sent_when_the_workflow_waits_for_them(workflow_test):
    code = "from durable_monty.flow import signal\nfrom asyncio import sleep\na = await signal('n')\nawait sleep(5)\n[a, await signal('n')]"
    workflow_test.answer("n", 1, lambda: workflow_test.clock.elapsed_seconds)
    assert workflow_test.run(code) == [1, 5]


def test_a_workflow_is_driven_step_by_step(workflow_test):
    workflow_test.start(approval, {"days": 7})
    (wait,) = workflow_test.run_until_blocked()
    assert (wait.kind, wait.name, wait.due_at) == ("signal", "approved", workflow_test.clock() + 7 * DAY)
    assert workflow_test.status == "waiting"
    workflow_test.clock.advance(days=6.5)
    assert workflow_test.status == "waiting"
    workflow_test.signal("approved", 1)
    assert workflow_test.run_until_blocked() == []
    assert workflow_test.result == 1


def test_moving_the_clock_meets_everything_on_the_way(workflow_test):
    workflow_test.replace(charge, lambda customer, cents: "ok")
    workflow_test.start(subscription, {"customer": "a", "months": 12})
    workflow_test.clock.advance(days=100)
    assert workflow_test.published("paid") == 4
    start = workflow_test.calls[0].at
    assert [(made.at - start).days for made in workflow_test.calls] == [0, 30, 60, 90]
    assert workflow_test.clock.now == start + dt.timedelta(days=100)


def test_the_clock_does_not_go_back(workflow_test):
    with pytest.raises(ValueError, match="must not be negative"):
        workflow_test.clock.advance(-1)
    with pytest.raises(ValueError, match="a clock does not go back"):
        workflow_test.clock.advance_to(dt.datetime(2029, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(ValueError, match="needs a time zone"):
        workflow_test.clock.advance_to(dt.datetime(2031, 1, 1))  # noqa: DTZ001


def test_the_workflow_reads_the_clock_of_the_test():
    code = "import datetime, time\n[datetime.datetime.now(datetime.timezone.utc), time.time(), datetime.date.today()]"
    now = dt.datetime(2031, 5, 6, 7, tzinfo=dt.UTC)
    with WorkflowTest(now=now) as t:
        assert t.run(code) == [now, now.timestamp(), now.date()]


@workflow
async def at_noon(when: dt.datetime) -> None:
    await sleep_until(when)


def test_sleeping_until_a_time_ends_at_it(workflow_test):
    when = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)
    workflow_test.run(at_noon, {"when": when})
    assert workflow_test.clock.now == when


def test_a_killed_process_goes_on_from_the_snapshot(workflow_test):
    workflow_test.replace(charge, lambda customer, cents: str(cents))
    workflow_test.start(subscription, {"customer": "a", "months": 3})
    workflow_test.clock.advance(days=31)
    for _ in range(2):
        workflow_test.restart()
    assert workflow_test.finish() == ["100"] * 3
    assert len(workflow_test.calls) == 3


def test_what_ran_when_the_process_was_killed_is_run_again(workflow_test):
    workflow_test.takes(look_up, 8)
    workflow_test.start(born, {"name": "abc"})
    workflow_test.clock.advance(4)
    workflow_test.restart()
    assert workflow_test.finish() == dt.date(2000, 1, 3)
    assert [(made.attempt, made.status) for made in workflow_test.calls] == [(1, "lost"), (2, "completed")]
    assert workflow_test.clock.elapsed_seconds == 12


def test_a_workflow_that_waits_for_ever_is_an_error(workflow_test):
    with pytest.raises(WorkflowBlocked, match="waiting for signal 'never', and nothing else will happen"):
        workflow_test.run("from durable_monty.flow import signal\nawait signal('never')")


def test_a_workflow_that_goes_on_for_ever_is_an_error(workflow_test):
    with pytest.raises(WorkflowBlocked, match="after 604800 s"):
        workflow_test.run("from asyncio import sleep\nwhile True:\n    await sleep(86400)", within_seconds=7 * DAY)


@workflow
async def doubled(value: int) -> int:
    await asyncio.sleep(3600)
    emit("log", value)
    return 2 * value


@workflow
async def family(values: list[int]) -> list[int]:
    await start_child(doubled, {"value": 0}, execution_id="left", parent_close="abandon")
    return [await aw for aw in as_completed([child(doubled, {"value": value}) for value in values])]


def test_children_are_run(workflow_test):
    assert workflow_test.run(family, {"values": [1, 2]}, execution_id="f") == [2, 4]
    assert workflow_test.clock.elapsed_seconds == 3600
    workflow_test.clock.advance(hours=1)
    assert workflow_test.service.get_result("left") == 0
    assert workflow_test.stream("log", "left") == [0]


def test_a_parent_is_said_to_wait_for_its_children(workflow_test):
    workflow_test.start(family, {"values": [1, 2]}, execution_id="f")
    assert [(wait.kind, wait.name) for wait in workflow_test.run_until_blocked()] == [
        ("child", "f-1"),
        ("child", "f-2"),
    ]


def test_cancellation_at_a_chosen_time_runs_the_cleanup(workflow_test):
    code = "from asyncio import sleep\ntry:\n    await sleep(1000)\nfinally:\n    await tidy()"

    def tidy() -> None: ...

    workflow_test.after(10, lambda: workflow_test.service.cancel("c"))
    with pytest.raises(ExecutionFailed, match="cancelled"):
        workflow_test.run(code, external_functions=[tidy], execution_id="c")
    assert workflow_test.clock.elapsed_seconds == 10
    assert [made.function for made in workflow_test.calls] == ["tidy"]


def test_a_schedule_fires_in_virtual_time(workflow_test):
    workflow_test.service.create_schedule("nightly", "1", cron="0 3 * * *", timezone="Europe/Berlin")
    workflow_test.clock.advance(days=7)
    ended = workflow_test.service.list_executions("completed")
    assert len(ended) == 7
    assert {dt.datetime.fromtimestamp(item["started_at"], dt.UTC).hour for item in ended} == {2}


def test_the_kit_may_be_used_where_an_event_loop_runs():
    async def main():
        with WorkflowTest() as t:
            return t.run(born, {"name": "ab"})

    assert asyncio.run(main()) == dt.date(2000, 1, 2)


HOUR = 60 * 60


@workflow
async def an_hour() -> int:
    await asyncio.sleep(HOUR)
    return HOUR


def test_a_constant_may_be_reckoned(workflow_test):
    assert workflow_test.run(an_hour) == 3600 == workflow_test.clock.elapsed_seconds


@pytest.mark.parametrize("wait", ["sleep(0)", "sleep(-1)", "timeout(sleep(5), 0)", "signal('x', timeout_seconds=0)"])
def test_a_wait_of_no_time_ends_at_once(workflow_test, wait):
    """Its time has come when the turn that began it is recorded; nobody rings for it."""
    code = f"from asyncio import sleep\nfrom durable_monty.flow import signal, timeout\ntry:\n    await {wait}\nexcept TimeoutError:\n    pass"
    workflow_test.run(code)
    assert workflow_test.clock.elapsed_seconds == 0


def test_heartbeats_carry_progress_to_the_next_attempt(workflow_test):
    assert workflow_test.run("await copy(10)", external_functions=[copy]) == 5


def test_a_run_that_is_silent_for_too_long_is_taken_for_dead(workflow_test):
    workflow_test.takes(copy, lambda pages: 5 if workflow_test.calls[1:] else 3600)
    assert workflow_test.run("await copy(10)", external_functions=[copy]) == 0
    assert [made.status for made in workflow_test.calls] == ["cancelled", "completed"]
    assert 26 <= workflow_test.clock.elapsed_seconds < 27


@pytest.mark.parametrize(
    ("seconds", "words"), [("-1", "from 0 on"), ("None", "a number of seconds"), ("float('nan')", "from 0 on")]
)
def test_a_timeout_that_cannot_be_is_an_error(workflow_test, seconds, words):
    with pytest.raises(ExecutionFailed, match=words):
        workflow_test.run(
            f"from asyncio import sleep\nfrom durable_monty.flow import timeout\nawait timeout(sleep(1), {seconds})",
            check=False,
        )

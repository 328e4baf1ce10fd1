"""Concurrency and rate limits over all workers, and the order in which calls that wait come to run."""

from __future__ import annotations

import time

import pytest

from durable_monty import LocalExecutor, OrchestratorService, Worker, init_db
from durable_monty.config import Config
from durable_monty.limits import Limit
from durable_monty.models import CallStatus, ExecutionStatus
from durable_monty.records import CallKind, CallRow, Turn
from support import functions
from support import policy_functions as host
from support.workers import DEADLINE_SECONDS, running

GATHER = "from asyncio import gather\nawait gather(*[{call} for i in range({count})])"


def start(service, call, count, function, **inputs):
    return service.start_execution(GATHER.format(call=call, count=count), [function], inputs)


def most_at_once(lines, of=""):
    now = most = 0
    for line in lines:
        if line[1:].startswith(of):
            now += 1 if line.startswith("+") else -1
            most = max(most, now)
    assert now == 0
    return most


def test_a_concurrency_limit_holds_over_all_workers(database_url, tmp_path):
    path = str(tmp_path / "notes")
    services = [OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config()) for _ in range(3)]
    ids = [start(services[0], 'two_at_a_time(path, f"{i}")', 8, host.two_at_a_time, path=path) for _ in range(3)]
    with running(*[Worker(service, poll_interval=0.05) for service in services]):
        for execution_id in ids:
            assert services[0].wait(execution_id, DEADLINE_SECONDS)["output"] == [str(i) for i in range(8)]
    assert most_at_once(host.lines(path)) == 2, "two at a time, and not one"
    assert len(host.lines(path)) == 48
    for service in services:
        service.close()


def test_each_key_has_a_count_of_its_own(lite_service, tmp_path):
    path = str(tmp_path / "notes")
    call = 'one_per_customer({"customer": "ab"[i % 2], "path": path})'
    execution_id = start(lite_service, call, 8, host.one_per_customer, path=path)
    Worker(lite_service).run(until_complete=True)
    assert lite_service.get_result(execution_id) == ["a", "b"] * 4
    lines = host.lines(path)
    assert most_at_once(lines, "a") == most_at_once(lines, "b") == 1
    assert most_at_once(lines) == 2, "one does not wait for the other"


def test_a_rate_limit_holds_over_all_workers(database_url, tmp_path):
    """Twenty a second, evenly spread: ten calls of two workers begin in no less than nine twentieths of a second."""
    services = [OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config()) for _ in range(2)]
    execution_id = start(services[0], "paced(path)", 10, host.paced, path=str(tmp_path / "notes"))
    with running(*[Worker(service, poll_interval=0.05) for service in services]):
        times = sorted(services[0].wait(execution_id, DEADLINE_SECONDS)["output"])
    assert len(times) == 10
    claimed = sorted(float(line) for line in host.lines(tmp_path / "notes"))
    # From claim to run a thread may take its time; over all of them it cannot be made up.
    assert claimed[-1] - claimed[0] > 0.3
    for service in services:
        service.close()


def test_the_next_call_does_not_wait_for_a_look_at_the_database(lite_service, tmp_path):
    """A worker that looks once in ten minutes: what ends lets the next begin."""
    execution_id = start(lite_service, 'ordered(path, f"{i}")', 20, host.ordered, path=str(tmp_path / "notes"))
    with running(Worker(lite_service, poll_interval=600)):
        lite_service.runtime.want_look()
        assert len(lite_service.wait(execution_id, DEADLINE_SECONDS)["output"]) == 20


@pytest.mark.parametrize("is_limited", [True, False])
def test_what_waits_comes_by_priority(lite_service, tmp_path, is_limited):
    options = "priority=i % 3" + (", concurrency=1" if is_limited else "")
    code = (
        "from asyncio import gather\nfrom durable_monty.flow import options\n"
        f"await gather(*[options(ordered_, {options})(path, str(i % 3)) for i in range(9)])"
    )

    def ordered_(path: str, name: str) -> str:
        host.note(path, name)
        return name

    ordered_.__qualname__ = "ordered_"
    execution_id = lite_service.start_execution(code, [ordered_], {"path": str(tmp_path / "notes")})
    lite_service.process_execution(execution_id)
    Worker(lite_service, LocalExecutor(workers=1)).run(until_complete=True)
    assert host.lines(tmp_path / "notes") == ["2"] * 3 + ["1"] * 3 + ["0"] * 3


def test_waiting_makes_up_for_a_lower_priority(store):
    """One that has waited for three minutes comes before one of priority 2 that was made just now."""
    now = time.time()
    calls = [(now - 180, 0), (now, 2), (now - 100, 2), (now - 10, 0)]
    fill(store, [(due_at, priority, key) for key in (None, "k") for due_at, priority in calls], {"concurrency": 10})
    for found in (store.claim_calls("w", "local", now, 10), store.limits.claim("w", "local", now, 10).calls):
        assert [due.row.call_id % 4 for due in found] == [2, 0, 1, 3]


def fill(store, calls, policy=None):
    """An execution `e` with pending calls: due at, priority, limit key."""
    OrchestratorService(store, Config()).start_execution("await add(1, 2)", [functions.add], execution_id="e")
    store.claim("w", time.time(), 1)
    rows = [
        CallRow(
            number,
            CallKind.FUNCTION,
            "f",
            "[[],{}]",
            CallStatus.PENDING,
            executor="local",
            due_at=due_at,
            priority=priority,
            created_at=due_at,
            limit_key=key,
            policy=policy,
        )
        for number, (due_at, priority, key) in enumerate(calls)
    ]
    store.commit("w", [], [Turn("e", 0, ExecutionStatus.WAITING, calls=rows, at=1.0)], (), 1.0)


def test_calls_of_many_keys_are_all_found(store):
    fill(store, [(1.0, 0, f"k{number:04d}") for number in range(450)], {"concurrency": 1})
    found, after = [], ""
    while after is not None:
        claim = store.limits.claim("w", "local", 2.0, 1000, after)
        found += claim.calls
        after = claim.after
    assert sorted(due.row.call_id for due in found) == list(range(450))
    assert store.limits.claim("w", "local", 2.0, 1000).calls == []


def test_a_thousand_calls_that_wait_cost_a_claim_nothing_to_speak_of(store):
    """Counted in steps of the database's machine, not in time: the claim goes by the index."""
    fill(store, [(1.0, 0, "k")] * 1000 + [(1.0, 0, None)], {"concurrency": 1})
    (_,) = store.limits.claim("w", "local", 2.0, 1000).calls
    steps = 0

    def count():
        nonlocal steps
        steps += 1
        return 0

    if not store._connections.is_postgresql:
        with store._connections.write() as connection:
            connection.connection.driver_connection.set_progress_handler(count, 100)
    assert store.limits.claim("w", "local", 2.0, 1000).calls == []
    assert [due.row.call_id for due in store.claim_calls("w", "local", 2.0, 1000)] == [1000]
    assert steps < 50, "a scan of a thousand rows takes several times as many"


def test_a_key_that_cannot_be_had_is_refused_in_clear_words(lite_service):
    code = "try:\n    found = await keyless(0)\nexcept RuntimeError as e:\n    found = str(e)\nfound"
    execution_id = lite_service.start_execution(code, [host.keyless])
    Worker(lite_service).run(until_complete=True)
    message = lite_service.get_result(execution_id)
    assert message.startswith("refused: the key 'support.policy_functions.<lambda>'")
    assert "ZeroDivisionError" in message


def test_limits_of_the_configuration_beat_those_of_the_decorator(tmp_path):
    table = {"support.policy_functions.two_at_a_time": {"concurrency": 1}}
    with OrchestratorService(
        init_db(f"sqlite:///{tmp_path}/a.db"), Config.model_validate({"function": table})
    ) as service:
        path = str(tmp_path / "notes")
        start(service, 'two_at_a_time(path, f"{i}")', 4, host.two_at_a_time, path=path)
        Worker(service).run(until_complete=True)
        assert most_at_once(host.lines(path)) == 1


def test_one_call_may_name_its_key_and_its_limit(lite_service, tmp_path):
    code = (
        "from asyncio import gather\nfrom durable_monty.flow import options\n"
        'await gather(*[options(sleep, concurrency=1, key="ab"[i % 2])(0.01) for i in range(4)])'
    )
    execution_id = lite_service.start_execution(code, [functions.sleep])
    lite_service.process_execution(execution_id)
    keys = [call.limit_key for call in lite_service.runtime.store.calls(execution_id)]
    assert keys == ["support.functions.sleep:a", "support.functions.sleep:b"] * 2
    Worker(lite_service).run(until_complete=True)
    assert lite_service.get_result(execution_id) == [0.01] * 4


def test_a_rate_gives_no_more_than_it_says():
    limit = Limit.of({"rate": "2/m"})
    assert limit.room(limit.tokens(1.0, 0), 0) == 1
    assert limit.room(limit.tokens(0.0, 29.9), 0) == 0
    assert limit.room(limit.tokens(0.0, 30.0), 0) == 1
    assert limit.room(limit.tokens(0.0, 3600.0), 0) == 1, "a quiet hour saves nothing up"
    assert limit.seconds_until_next(0.5) == 15
    assert Limit.of({"concurrency": 3}).room(0.0, 5) == 0

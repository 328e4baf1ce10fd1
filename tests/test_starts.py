"""What a start may ask for: ids that are taken, keys, delays, deadlines, tags and a memo."""

from __future__ import annotations

import importlib.util
import threading

import pytest

from durable_monty import (
    ExecutionConflict,
    ExecutionNotEnded,
    InputError,
    OrchestratorService,
    Worker,
    init_db,
    program,
)
from durable_monty.config import Config
from support import functions as host
from support.killed import KILLED, run_killed
from support.workers import DEADLINE_SECONDS, running

CODE = "await add(n, 1)"


def start(service, n=1, code=CODE, **options):
    return service.start_execution(code, [host.add], {"n": n}, **options)


def test_what_was_asked_for_at_the_start_is_shown(service):
    options = {"tags": {"customer": "ada", "plan": "gold"}, "memo": {"why": ("a", 1)}, "deadline_seconds": 60}
    found = service.get_execution(start(service, **options))
    assert (found["tags"], found["memo"]) == (options["tags"], options["memo"])
    assert found["deadline_at"] == pytest.approx(found["created_at"] + 60)
    assert found["schedule"] is None
    bare = service.get_execution(start(service))
    assert (bare["tags"], bare["memo"], bare["deadline_at"]) == ({}, {}, None)


def test_an_id_that_is_taken_is_rejected_even_by_the_same_start(service):
    start(service, execution_id="one", id_reuse="reject")
    with pytest.raises(ExecutionConflict, match=r"'one': it exists, it is scheduled.*id_reuse='return'"):
        start(service, execution_id="one", id_reuse="reject")


def test_an_id_that_is_taken_returns_what_has_it_whatever_it_was_started_with(service):
    start(service, execution_id="one", id_reuse="return")
    assert start(service, 2, execution_id="one", id_reuse="return", tags={"a": "b"}) == "one"
    found = service.get_execution("one")
    assert (found["inputs"], found["tags"]) == ({"n": 1}, {})


def test_what_has_ended_is_replaced_with_everything_that_hung_on_it(service):
    code = "await fail_until_third()\nawait add(n, 1)"
    first = service.start_execution(
        code, [host.add, host.fail_until_third], {"n": 1}, execution_id="one", tags={"a": "b"}, memo={"m": 1}
    )
    Worker(service).run(until_complete=True)
    assert service.runtime.store.failed_attempts(first)
    assert start(service, 5, execution_id="one", id_reuse="restart", tags={"c": "d"}) == "one"
    found = service.get_execution("one")
    assert (found["status"], found["tags"], found["memo"], found["output"]) == ("scheduled", {"c": "d"}, {}, None)
    assert service.runtime.store.calls("one") == []
    assert service.runtime.store.failed_attempts("one") == []
    assert service.list_executions(tags={"a": "b"}) == []
    Worker(service).run(until_complete=True)
    assert service.get_result("one") == 6


def test_what_lives_is_not_restarted(service):
    start(service, execution_id="one")
    with pytest.raises(ExecutionNotEnded, match="'one' anew: it is scheduled; cancel it"):
        start(service, 2, execution_id="one", id_reuse="restart")
    assert service.get_execution("one")["inputs"] == {"n": 1}


def test_of_executions_with_one_singleton_key_one_lives(service):
    first = start(service, singleton_key="report")
    assert start(service, 2, singleton_key="report") == first
    assert start(service, 2, singleton_key="report", execution_id="named") == first
    assert start(service, 2, singleton_key="other") != first
    assert len(service.list_executions()) == 2
    Worker(service).run(until_complete=True)
    second = start(service, 3, singleton_key="report")
    assert second != first


def test_a_failed_execution_is_not_retried_beside_another_with_its_key(service):
    failed = service.start_execution("await fail('ValueError', 'no')", [host.fail], singleton_key="report")
    debounced = service.start_execution(
        "await fail('ValueError', 'no')", [host.fail], debounce_key="save", delay_seconds=0.001
    )
    Worker(service).run(until_complete=True)
    living = start(service, singleton_key="report")
    with pytest.raises(ExecutionConflict, match=f"'{living}' with the same singleton key 'report' lives"):
        service.retry(failed)
    assert service.get_execution(failed)["status"] == "failed"
    start(service, debounce_key="save", delay_seconds=3600)
    service.retry(debounced)
    service.cancel(living)
    service.retry(failed)


def test_starters_that_race_for_a_key_end_with_one_execution(database_url):
    services = [OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config()) for _ in range(4)]
    start(services[0], code="await add(n, 2)")
    for key in ({"singleton_key": "k"}, {"debounce_key": "k", "delay_seconds": 3600}, {"execution_id": "k"}):
        barrier, found = threading.Barrier(len(services)), []

        def race(service, key=key, barrier=barrier, found=found):
            barrier.wait()
            found.append(start(service, **key))

        threads = [threading.Thread(target=race, args=(service,)) for service in services]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == len(services)
        assert len(set(found)) == 1, key
    assert len(services[0].list_executions()) == 4
    for service in services:
        service.close()


def test_a_start_with_the_same_debounce_key_replaces_the_inputs_and_postpones(service):
    first = start(service, debounce_key="save", delay_seconds=1000, tags={"a": "b"})
    before = service.runtime.store.execution(first)
    assert start(service, 2, debounce_key="save", delay_seconds=2000, tags={"c": "d"}, memo={"m": 1}) == first
    after = service.runtime.store.execution(first)
    assert after.wake_at >= before.wake_at + 1000
    found = service.get_execution(first)
    assert (found["inputs"], found["tags"], found["memo"]) == ({"n": 2}, {"c": "d"}, {"m": 1})
    assert len(service.list_executions()) == 1
    assert start(service, 3, debounce_key="other", delay_seconds=1000) != first


def test_what_has_begun_is_not_debounced_any_more(service):
    first = start(service, debounce_key="save", delay_seconds=1000)
    service.process_execution(first)
    second = start(service, 2, debounce_key="save", delay_seconds=1000)
    assert second != first
    assert start(service, 3, debounce_key="save", delay_seconds=1000) == second
    assert service.get_execution(first)["inputs"] == {"n": 1}


def test_what_a_worker_has_just_claimed_is_not_debounced(service):
    """It has the inputs in memory already, although nothing of it is recorded yet."""
    first = start(service, debounce_key="save", delay_seconds=0.001)
    store = service.runtime.store
    assert store.claim("w", service.runtime.clock() + 1, 1)
    assert start(service, 2, debounce_key="save", delay_seconds=1000) != first
    store.release("w", [first], [first], service.runtime.clock())
    assert service.get_execution(first)["inputs"] == {"n": 1}


def test_a_delayed_start_begins_when_its_time_has_come(service):
    late = start(service, delay_seconds=3600)
    soon = start(service, delay_seconds=0.05)
    Worker(service, poll_interval=0.05).run_until(lambda: service.get_execution(soon)["status"] == "completed")
    row = service.runtime.store.execution(soon)
    assert row.started_at >= row.created_at + 0.05
    assert service.get_execution(late)["status"] == "scheduled"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline_seconds": 0}, "deadline_seconds is 0; it must be more than 0"),
        ({"deadline_seconds": -1}, "deadline_seconds is -1"),
        ({"deadline_seconds": float("nan")}, "deadline_seconds is nan; it must be a finite number of seconds"),
        ({"deadline_seconds": float("inf")}, "finite"),
        ({"deadline_seconds": "60"}, "deadline_seconds is '60'; it must be a finite number"),
        ({"deadline_seconds": True}, "finite number"),
        ({"deadline_seconds": 1e12}, "more than a hundred years"),
        ({"deadline_seconds": 5, "delay_seconds": 5}, "not to begin before 5 s"),
        ({"delay_seconds": -0.1}, "delay_seconds is -0.1; it must not be negative"),
        ({"delay_seconds": None}, "delay_seconds is None"),
        ({"debounce_key": "k"}, "debounce_key without delay_seconds"),
        ({"debounce_key": "", "delay_seconds": 1}, "debounce_key is ''; it must be text of 1 to 200"),
        ({"singleton_key": 7}, "singleton_key is 7"),
        ({"singleton_key": "a\0b"}, "none of them null"),
        ({"id_reuse": "retry", "execution_id": "x"}, "id_reuse is 'retry'; it is one of reject, return, restart"),
        ({"id_reuse": "return"}, "name an id"),
        ({"tags": {"customer": 7}}, "tag 'customer' is 7"),
        ({"tags": {"": "x"}}, "the name of a tag is ''"),
        ({"tags": {"a": "x" * 201}}, "1 to 200 characters"),
        ({"tags": {str(i): "x" for i in range(51)}}, "51 tags; 50 are the most"),
        ({"tags": ["a"]}, "write a dict of texts"),
        ({"memo": {1: 2}}, "a dict whose keys are texts"),
        ({"memo": "note"}, "memo is 'note'"),
    ],
)
def test_options_that_mean_nothing_start_nothing(lite_service, options, message):
    with pytest.raises(ValueError, match=message):
        start(lite_service, **options)
    assert lite_service.list_executions() == []


def test_a_memo_that_cannot_be_carried_names_its_place(lite_service):
    with pytest.raises(InputError, match=r"memo\['a'\]\[1\]"):
        start(lite_service, memo={"a": [1, object()]})
    assert lite_service.list_executions() == []


@pytest.mark.parametrize("pattern", ["DELETE FROM calls", "INSERT INTO executions", "INSERT INTO tags"])
def test_a_restart_that_is_killed_has_happened_in_whole_or_not_at_all(database_url, pattern):
    service = OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config())
    start(service, execution_id="one", tags={"run": "first"})
    Worker(service).run(until_complete=True)
    assert run_killed(database_url, "restart", pattern, 1) == KILLED
    assert service.get_result("one") == 2
    assert service.get_execution("one")["tags"] == {"run": "first"}
    assert len(service.runtime.store.calls("one")) == 1
    assert run_killed(database_url, "restart", "never", 1) == 0
    Worker(service).run(until_complete=True)
    assert service.get_result("one") == 8
    service.close()


def test_a_start_with_a_key_that_is_killed_leaves_the_key_free(database_url):
    assert run_killed(database_url, "singleton", "INSERT INTO tags", 1) == KILLED
    assert run_killed(database_url, "singleton", "never", 1) == 0
    assert run_killed(database_url, "singleton", "never", 1) == 0
    service = OrchestratorService(init_db(database_url), Config())
    assert [item["tags"] for item in service.list_executions()] == [{"a": "b"}]
    first = start(service, debounce_key="d", delay_seconds=3600, tags={"run": "first"})
    assert run_killed(database_url, "debounce", "INSERT INTO tags", 1) == KILLED
    found = service.get_execution(first)
    assert (found["inputs"], found["tags"]) == ({"n": 1}, {"run": "first"})
    assert run_killed(database_url, "debounce", "never", 1) == 0
    found = service.get_execution(first)
    assert (found["inputs"], found["tags"]) == ({"n": 7}, {"run": "second"})
    service.close()


def start_all(service, numbers, **options):
    return service.start_executions(CODE, [host.add], [{"n": n} for n in numbers], **options)


def count(service):
    with service.runtime.store._connections.engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM executions").scalar()


def test_many_executions_are_started_at_once(service):
    ids = start_all(service, range(1002), tags={"run": "one"}, delay_seconds=3600)
    assert len(set(ids)) == count(service) == 1002
    found = service.get_execution(ids[1001])
    assert (found["inputs"], found["tags"], found["status"]) == ({"n": 1001}, {"run": "one"}, "scheduled")
    assert len(service.list_executions(tags={"run": "one"}, limit=2000)) == 1002
    assert service.process_execution(ids[7])["status"] == "waiting"


def test_a_worker_begins_at_once_with_many_that_were_started(service):
    with running(Worker(service, poll_interval=3600)):
        ids = start_all(service, range(3))
        assert [service.wait(id_, DEADLINE_SECONDS)["output"] for id_ in ids] == [1, 2, 3]


def test_many_started_again_are_those_that_are_there(service):
    ids = ["a", "b", "c"]
    assert start_all(service, [1, 2], execution_ids=ids[:2]) == ids[:2]
    assert start_all(service, [1, 2, 3], execution_ids=ids, tags={"x": "y"}) == ids
    assert [service.get_execution(id_)["tags"] for id_ in ids] == [{}, {}, {"x": "y"}]
    assert start_all(service, [4, 4], execution_ids=["d", "d"]) == ["d", "d"]
    assert count(service) == 4


@pytest.mark.parametrize(
    ("numbers", "ids", "error", "message"),
    [
        ([2, 3, 4], ["new", "old", "newer"], ExecutionConflict, "'old': it exists with other inputs"),
        ([2, 3], ["new", "new"], ExecutionConflict, "'new': it exists with other inputs"),
        ([2, 3], ["new", "-"], ValueError, "an id is"),
        ([2, 3], ["new"], ValueError, "2 executions: there are 1 execution_ids"),
        ([2, object()], None, InputError, "inputs"),
        ([], None, None, ""),
    ],
)
def test_of_many_all_are_started_or_none(service, numbers, ids, error, message):
    start(service, execution_id="old")
    if error is None:
        assert start_all(service, numbers, execution_ids=ids) == []
    else:
        with pytest.raises(error, match=message):
            start_all(service, numbers, execution_ids=ids)
    assert count(service) == 1


MODULE = """
from durable_monty import function, workflow
LIMIT = 3
@function
def step(n: int) -> int: ...
@function
def leap(n: int) -> int: ...
@workflow
async def walk(n: int) -> int:
    return await step(n + LIMIT)
"""


@pytest.fixture
def walking(tmp_path):
    """A module with a workflow, and its file."""
    file = tmp_path / "walking.py"
    file.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("walking", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, file


def _change_nothing(module, file): ...


def _change_what_a_name_means(module, file):
    module.step = module.leap


def _change_the_file(module, file):
    file.write_text(MODULE.replace("LIMIT = 3", "LIMIT = 10"))


@pytest.mark.parametrize(
    ("change", "times"), [(_change_nothing, 1), (_change_what_a_name_means, 2), (_change_the_file, 2)]
)
def test_a_workflow_is_read_again_if_what_it_is_made_of_has_changed(lite_service, monkeypatch, walking, change, times):
    read, extract = [], program.extract
    monkeypatch.setattr(program, "extract", lambda *arguments: read.append(0) or extract(*arguments))
    module, file = walking
    started = []
    for _ in range(2):
        for n in (1, 2):
            module.counter = n
            started.append(lite_service.start_execution(module.walk, inputs={"n": n}))
        change(module, file)
    assert len(read) == times
    store = lite_service.runtime.store
    assert len({store.execution(execution_id).workflow for execution_id in started}) == times

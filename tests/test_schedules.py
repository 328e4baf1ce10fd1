"""Schedules: every time is fired for once, whatever dies, and what overlaps does as it was told."""

from __future__ import annotations

import itertools
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from durable_monty import (
    InputError,
    OrchestratorService,
    ScheduleConflict,
    ScheduleError,
    ScheduleNotFound,
    Worker,
    WorkflowCheckError,
    init_db,
    workflow,
)
from durable_monty.config import Config
from durable_monty.firing import MAX_QUEUED, Firer, decide
from durable_monty.store.schedules import ScheduleRow
from support import functions as host
from support.functions import add
from support.killed import KILLED, run_killed
from support.workers import running

CODE = "await add(n, 1)"
START = datetime(2026, 3, 1, 5, 59, 30, tzinfo=UTC)


class Clock:
    def __init__(self, service):
        self.now = START
        service.runtime.clock = lambda: self.now.timestamp()

    def to(self, *time):
        self.now = datetime(2026, *time, tzinfo=UTC)


@pytest.fixture
def clock(service):
    return Clock(service)


def create(service, name="nightly", code=CODE, **options):
    asked = {"cron": "0 6 * * *", "inputs": {"n": 1}, "external_functions": [host.add], **options}
    service.create_schedule(name, code, **asked)


def schedule(service, name="nightly"):
    return next(item for item in service.list_schedules() if item["name"] == name)


def fire(service):
    return Firer(service.runtime.store).fire(service.runtime.clock())


def started(service):
    return sorted(item["execution_id"] for item in service.list_executions())


def end(service, execution_id):
    service.process_execution(execution_id)
    service.complete_call(execution_id, 0, 0)
    service.process_execution(execution_id)
    assert service.get_execution(execution_id)["status"] == "completed"


def test_a_schedule_starts_its_workflow_at_its_times(service, clock):
    create(service)
    assert fire(service) == []
    clock.to(3, 1, 6)
    assert fire(service) == ["nightly-20260301T060000Z"]
    assert fire(service) == []
    found = service.get_execution("nightly-20260301T060000Z")
    assert (found["schedule"], found["inputs"], found["status"]) == ("nightly", {"n": 1}, "scheduled")
    at = schedule(service)
    assert at["last_at"] == datetime(2026, 3, 1, 6, tzinfo=UTC).timestamp()
    assert at["next_at"] == datetime(2026, 3, 2, 6, tzinfo=UTC).timestamp()
    assert at["last_execution"] == "nightly-20260301T060000Z"
    assert at["workflow"] == "workflow"


def test_a_worker_fires_what_is_due_and_runs_it(service):
    create(service, cron=None, interval_seconds=1)
    worker = Worker(service)
    with running(worker):
        deadline = time.monotonic() + 60
        while len(service.list_executions("completed")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert {item["output"] for item in service.list_executions("completed")} == {2}


@workflow
async def report(day: datetime, n: int) -> str:
    return f"{await add(n, 1)} at {day.isoformat()}"


def test_the_workflow_gets_the_time_that_it_is_started_for(service, clock):
    service.create_schedule("report", report, cron="0 6 * * *", inputs={"n": 1}, time_input="day")
    clock.to(3, 1, 6, 17)
    (execution_id,) = fire(service)
    assert service.get_execution(execution_id)["inputs"] == {"n": 1, "day": datetime(2026, 3, 1, 6, tzinfo=UTC)}
    assert schedule(service, "report")["inputs"] == {"n": 1}
    service.process_execution(execution_id)
    service.complete_call(execution_id, 0, 2)
    service.process_execution(execution_id)
    assert service.get_result(execution_id) == "2 at 2026-03-01T06:00:00+00:00"


def test_times_that_passed_while_no_worker_ran_are_made_up_for_by_the_last_of_them(service, clock):
    create(service)
    clock.to(3, 5, 12)
    assert fire(service) == ["nightly-20260305T060000Z"]
    assert schedule(service)["next_at"] == datetime(2026, 3, 6, 6, tzinfo=UTC).timestamp()


def test_what_was_missed_is_started_by_a_backfill_once(service, clock):
    create(service)
    clock.to(3, 5, 12)
    fire(service)
    begin, until = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 5, 6, tzinfo=UTC)
    missed = [f"nightly-2026030{day}T060000Z" for day in range(1, 5)]
    assert service.backfill("nightly", begin, until) == missed
    assert service.backfill("nightly", begin, until) == []
    assert started(service) == [*missed, "nightly-20260305T060000Z"]
    assert {item["schedule"] for item in service.list_executions()} == {"nightly"}


def test_an_interval_is_backfilled_also_before_its_beginning(service, clock):
    create(service, cron=None, interval_seconds=3600)
    found = service.backfill("nightly", START - timedelta(hours=2), START)
    assert found == ["nightly-20260301T035930Z", "nightly-20260301T045930Z", "nightly-20260301T055930Z"]


def test_skip_starts_nothing_while_the_last_one_lives(service, clock):
    create(service)
    clock.to(3, 1, 6)
    (first,) = fire(service)
    clock.to(3, 2, 6)
    assert fire(service) == []
    end(service, first)
    assert fire(service) == []
    clock.to(3, 3, 6)
    assert fire(service) == ["nightly-20260303T060000Z"]


def test_queue_starts_one_after_the_other(service, clock):
    create(service, overlap="queue")
    clock.to(3, 1, 6)
    (first,) = fire(service)
    for day in (2, 3):
        clock.to(3, day, 6)
        assert fire(service) == []
    assert len(schedule(service)["queued"]) == 2
    end(service, first)
    (second,) = fire(service)
    assert second == "nightly-20260302T060000Z"
    assert fire(service) == []
    end(service, second)
    assert fire(service) == ["nightly-20260303T060000Z"]
    assert schedule(service)["queued"] == []


def test_a_worker_starts_what_is_queued_when_the_last_one_has_ended(service, tmp_path):
    """By itself: the times have passed, nothing else happens."""
    code = "await note(path, 'run')"
    path = str(tmp_path / "notes")
    create(service, code=code, cron="0 6 * * *", overlap="queue", inputs={"path": path}, external_functions=[host.note])
    now = datetime.now(UTC)
    expected = service.backfill("nightly", now - timedelta(days=4), now)
    assert len(expected) == 4
    worker = Worker(service, poll_interval=0.2)
    with running(worker):
        for execution_id in expected:
            deadline = time.monotonic() + 60
            while not (tmp_path / "notes").exists() or execution_id not in started(service):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            service.wait(execution_id, timeout_seconds=60)
    found = [service.get_execution(execution_id) for execution_id in expected]
    assert all(item["status"] == "completed" for item in found)
    for before, after in itertools.pairwise(found):
        assert after["created_at"] >= before["ended_at"], "one after the other"


def test_cancel_asks_for_the_end_of_the_last_one(service, clock):
    create(service, overlap="cancel")
    clock.to(3, 1, 6)
    (first,) = fire(service)
    service.process_execution(first)
    clock.to(3, 2, 6)
    (second,) = fire(service)
    row = service.runtime.store.execution(first)
    assert "next execution of schedule 'nightly'" in row.cancel_reason
    assert service.process_execution(first)["status"] == "cancelled"
    assert service.get_execution(second)["status"] == "scheduled"
    clock.to(3, 3, 6)
    fire(service)
    assert service.get_execution(second)["status"] == "cancelled", "what has not begun is cancelled at once"


def test_a_paused_schedule_starts_nothing_and_goes_on_with_the_next_time(service, clock):
    create(service)
    service.pause_schedule("nightly")
    service.pause_schedule("nightly")
    assert schedule(service)["is_paused"]
    assert schedule(service)["next_at"] is None
    clock.to(3, 3, 12)
    assert fire(service) == []
    service.resume_schedule("nightly")
    assert fire(service) == []
    clock.to(3, 4, 6)
    assert fire(service) == ["nightly-20260304T060000Z"]


def test_a_deleted_schedule_leaves_what_it_has_started(service, clock):
    create(service)
    clock.to(3, 1, 6)
    (first,) = fire(service)
    service.delete_schedule("nightly")
    assert service.list_schedules() == []
    assert started(service) == [first]
    for ask in (service.delete_schedule, service.pause_schedule, service.resume_schedule):
        with pytest.raises(ScheduleNotFound, match="'nightly': there is none of this name"):
            ask("nightly")
    with pytest.raises(ScheduleNotFound):
        service.backfill("nightly", 0, 1)


def test_creating_a_schedule_again_does_nothing_unless_it_differs(service, clock):
    create(service)
    clock.to(3, 1, 7)
    create(service)
    assert schedule(service)["next_at"] == datetime(2026, 3, 1, 6, tzinfo=UTC).timestamp()
    with pytest.raises(ScheduleConflict, match="another cron, another overlap; delete it first"):
        create(service, cron="0 7 * * *", overlap="queue")
    with pytest.raises(ScheduleConflict, match="another workflow, another inputs"):
        create(service, code="await add(m, 1)", inputs={"m": 2})
    assert schedule(service)["cron"] == "0 6 * * *"


def test_a_schedule_that_cannot_be_read_here_does_not_stop_the_others(service, clock, caplog):
    """A worker on a machine without that time zone."""
    create(service)
    create(service, "broken", cron="* * * * *", timezone="Europe/Berlin")
    with service.runtime.store._connections.write() as connection:
        connection.exec_driver_sql("UPDATE schedules SET timezone = 'Mars/Olympus' WHERE name = 'broken'")
    clock.to(3, 1, 6)
    assert fire(service) == ["nightly-20260301T060000Z"]
    assert "'broken' cannot be fired here" in caplog.text
    assert schedule(service, "broken")["next_at"] == clock.now.timestamp() + 60


def test_a_queue_does_not_grow_without_end():
    row = ScheduleRow(
        "q", "w", "{}", None, None, "UTC", 1.0, "queue", False, 0.0, 5000.0, 4999.0, "e", tuple(range(MAX_QUEUED))
    )
    assert decide(row, True, 5000.0).queued == tuple(range(MAX_QUEUED))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cron": "0 0 30 2 *"}, ScheduleError, "creating schedule 'a': cron is '0 0 30 2 \\*'"),
        ({"timezone": "Mars/Olympus"}, ScheduleError, "Mars/Olympus"),
        ({"overlap": "wait"}, ScheduleError, "overlap is 'wait'; it is one of skip, queue, cancel"),
        ({"interval_seconds": 60}, ScheduleError, "both cron and interval_seconds"),
        ({"time_input": "n"}, ScheduleError, "time_input is 'n', which inputs has too"),
        ({"time_input": "day"}, InputError, "never uses 'day'"),
        ({"inputs": {}}, InputError, "nobody defines 'n'"),
        ({"inputs": {"n": object()}}, InputError, r"inputs\['n'\]"),
        ({"code": "await add(n)"}, WorkflowCheckError, "1 problem"),
    ],
)
def test_a_schedule_that_cannot_be_is_not_stored(lite_service, options, error, message):
    with pytest.raises(error, match=message):
        create(lite_service, "a", **options)
    assert lite_service.list_schedules() == []


@pytest.mark.parametrize("name", ["", "a b", "x" * 81, None])
def test_a_name_with_other_characters_is_refused(lite_service, name):
    with pytest.raises(ScheduleError, match="a name is 1 to 80"):
        create(lite_service, name)


@pytest.mark.parametrize(
    ("begin", "until", "message"),
    [
        (START, START - timedelta(days=1), "end is before start"),
        (START, START + timedelta(days=1), "end is in the future"),
        (START.replace(tzinfo=None), START, "start is .* which has no time zone"),
        ("yesterday", START, "start is 'yesterday'"),
        (START - timedelta(days=10), START, "more than 10000 times"),
    ],
)
def test_a_backfill_that_cannot_be_starts_nothing(lite_service, begin, until, message):
    Clock(lite_service)
    create(lite_service, cron="* * * * *")
    with pytest.raises(ScheduleError, match=message):
        lite_service.backfill("nightly", begin, until)
    assert lite_service.list_executions() == []


def prepared(url, overlap="skip"):
    """A schedule each minute, of which several times have passed."""
    service = OrchestratorService(init_db(url, synchronous="NORMAL"), Config())
    create(service, "tick", cron="* * * * *", overlap=overlap)
    with service.runtime.store._connections.write() as connection:
        past = time.time() - 600
        connection.exec_driver_sql(f"UPDATE schedules SET next_at = {past}, created_at = {past}")
    return service


@pytest.mark.parametrize("pattern", ["UPDATE schedules", "INSERT INTO executions", "UPDATE executions SET worker"])
def test_a_worker_killed_while_it_fires_neither_forgets_a_time_nor_fires_it_twice(database_url, pattern):
    service = prepared(database_url)
    assert run_killed(database_url, "work", pattern, 1) == KILLED
    assert run_killed(database_url, "work", "never", 1) == 0
    found = service.list_executions()
    assert len(found) == len({item["execution_id"] for item in found})
    # A minute may have begun between the two.
    assert 1 <= len(found) <= 2
    assert {item["status"] for item in found} == {"completed"}
    service.close()


def test_a_worker_killed_between_cancelling_and_starting_has_cancelled_once(database_url):
    service = prepared(database_url, overlap="cancel")
    (first,) = fire(service)
    service.process_execution(first)
    with service.runtime.store._connections.write() as connection:
        connection.exec_driver_sql(f"UPDATE schedules SET last_at = {time.time() - 300}, next_at = {time.time() - 240}")
        connection.exec_driver_sql("UPDATE schedules SET last_execution = 'tick-before'")
        connection.exec_driver_sql(f"UPDATE executions SET id = 'tick-before' WHERE id = '{first}'")
        for table in ("calls", "snapshots"):
            connection.exec_driver_sql(f"UPDATE {table} SET execution_id = 'tick-before'")
    assert run_killed(database_url, "work", "INSERT INTO executions", 1) == KILLED
    assert service.runtime.store.execution("tick-before").cancel_reason
    assert run_killed(database_url, "work", "never", 1) == 0
    statuses = {item["execution_id"]: item["status"] for item in service.list_executions()}
    assert statuses.pop("tick-before") == "cancelled"
    assert set(statuses.values()) == {"completed"}
    service.close()


def test_a_backfill_that_is_killed_has_started_all_or_nothing(database_url):
    service = prepared(database_url)
    until = time.time() - 60
    arguments = (until - 600, until)
    assert run_killed(database_url, "backfill", "INSERT INTO executions", 5, *arguments) == KILLED
    assert service.list_executions() == []
    assert run_killed(database_url, "backfill", "never", 1, *arguments) == 0
    assert len(service.list_executions()) in (10, 11)
    service.close()


def test_workers_that_look_at_the_same_moment_fire_once(database_url):
    services = [prepared(database_url), *(OrchestratorService(init_db(database_url), Config()) for _ in range(3))]
    now = time.time()
    barrier, found = threading.Barrier(4), []

    def race(service):
        barrier.wait()
        found.extend(Firer(service.runtime.store).fire(now))

    threads = [threading.Thread(target=race, args=(service,)) for service in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 1
    assert started(services[0]) == found
    for service in services:
        service.close()


def test_the_commands_do_it_all(tmp_path):
    from click.testing import CliRunner

    from durable_monty.cli import main

    (tmp_path / "nightly.py").write_text(CODE)

    def run(*arguments, code=0):
        done = CliRunner().invoke(main, ["schedule", *arguments])
        assert done.exit_code == code, done.output
        return done.output

    create_ = ("create", "n", "nightly.py", "--function", "support.functions:add", "--input", "n=1")
    run(*create_, "--cron", "0 6 * * *", "--timezone", "Europe/Berlin", "--overlap", "queue")
    run(*create_[:1], "often", *create_[2:], "--every", "15m")
    found = json.loads(run("list", "--json"))
    assert [(item["name"], item["cron"], item["interval_seconds"]) for item in found] == [
        ("n", "0 6 * * *", None),
        ("often", None, 900.0),
    ]
    run("pause", "n")
    assert "paused" in run("list")
    run("resume", "n")
    assert run("backfill", "n", "2026-03-01", "2026-03-03T12:00").count("n-2026030") == 3
    run("delete", "often")
    for arguments, message in (
        (("delete", "often"), "there is none of this name"),
        ((*create_, "--cron", "0 0 30 2 *"), "Bad day-of-month"),
        (("create", "m", *create_[2:], "--every", "soon"), "'soon' is no duration"),
        (("backfill", "n", "then", "2026-03-03"), "reading START 'then'"),
    ):
        assert message in run(*arguments, code=2)

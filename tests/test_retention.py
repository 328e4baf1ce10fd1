"""Retention: what ended long ago is archived and deleted, and nothing else, whatever dies."""

from __future__ import annotations

import json

import pytest

from durable_monty import ExecutionNotFound, OrchestratorService, Worker, init_db
from durable_monty.config import Config
from durable_monty.records import ExecutionRow
from durable_monty.store.starting import NewExecution
from support import functions as host
from support.killed import KILLED, run_killed

CODE = "await add(n, 1)"
DAY = 86_400.0


def start(service, name, n=1, code=CODE, **options):
    return service.start_execution(
        code, [host.add, host.fail, host.fail_until_third], {"n": n}, execution_id=name, **options
    )


def run(service, *names, **options):
    for name in names:
        start(service, name, **options)
    Worker(service).run(until_complete=True)


def age(service, name, seconds):
    """Let an execution have ended so long ago."""
    with service.runtime.store._connections.write() as connection:
        connection.exec_driver_sql(f"UPDATE executions SET ended_at = ended_at - {seconds} WHERE id = '{name}'")


def names(service):
    return sorted(item["execution_id"] for item in service.list_executions())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(service, table):
    with service.runtime.store._connections.read() as connection:
        return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()


@pytest.fixture
def filled(service):
    """`old` and `bad` ended two days ago, `new` a moment ago; `late` has not begun."""
    run(service, "old", tags={"customer": "ada"}, code="await fail_until_third()\nawait add(n, 1)")
    run(service, "bad", code="await fail('ValueError', str(n))")
    run(service, "new", memo={"why": 1})
    for name in ("old", "bad"):
        age(service, name, 2 * DAY)
    start(service, "late", delay_seconds=3600)
    return service


def test_what_ended_long_ago_is_deleted_with_everything_that_hung_on_it(filled):
    assert filled.count_ended(DAY) == 2
    assert filled.delete_ended(DAY) == 2
    assert names(filled) == ["late", "new"]
    assert (rows(filled, "calls"), rows(filled, "attempts"), rows(filled, "tags")) == (1, 0, 0)
    with pytest.raises(ExecutionNotFound):
        filled.get_result("old")
    assert filled.delete_ended(DAY) == 0


def test_only_what_ended_as_was_said_is_deleted(filled):
    assert filled.count_ended(DAY, statuses=["failed"]) == 1
    assert filled.delete_ended(DAY, statuses=["failed"]) == 1
    assert names(filled) == ["late", "new", "old"]


def test_what_lives_is_never_deleted(filled):
    filled.process_execution(start(filled, "waiting"))
    assert filled.delete_ended(0) == 3
    assert names(filled) == ["late", "waiting"]


def test_no_more_is_deleted_than_was_said_the_oldest_first(filled):
    age(filled, "bad", DAY)
    told = []
    assert filled.delete_ended(0, limit=2, deleted=told.append) == 2
    assert told == [2]
    assert names(filled) == ["late", "new"]


def test_the_archive_holds_all_that_was_known(filled, tmp_path):
    path = tmp_path / "archive.jsonl"
    assert filled.delete_ended(DAY, archive=path) == 2
    by_id = {line["execution"]["id"]: line for line in lines(path)}
    assert set(by_id) == {"old", "bad"}
    old = by_id["old"]
    assert old["format"] == 1
    assert old["tags"] == {"customer": "ada"}
    assert (old["execution"]["status"], old["execution"]["inputs"], old["execution"]["output"]) == (
        "completed",
        {"n": 1},
        2,
    )
    assert old["workflow"]["user_source"] == "await fail_until_third()\nawait add(n, 1)"
    functions = [call for call in old["calls"] if call["kind"] == "function"]
    assert [(call["function"].rpartition(".")[2], call["outcome"]) for call in functions] == [
        ("fail_until_third", 3),
        ("add", 2),
    ]
    assert functions[1]["arguments"] == [[1, 1], {}]
    assert [(item["attempt"], item["failure"]["type"]) for item in old["attempts"]] == [
        (1, "ConnectionError"),
        (2, "ConnectionError"),
    ]
    assert "ValueError: 1" in by_id["bad"]["execution"]["error"]
    filled.delete_ended(0, archive=path)
    assert [line["execution"]["id"] for line in lines(path)][2:] == ["new"]
    assert lines(path)[2]["execution"]["memo"] == {"why": 1}


def test_a_line_that_a_kill_has_cut_off_is_written_anew(filled, tmp_path):
    path = tmp_path / "archive.jsonl"
    path.write_text('{"format":1,"execution":{"id":"earlier"}}\n{"format":1,"execution":{"id":"o' + "x" * 100_000)
    filled.delete_ended(DAY, archive=path)
    assert {line["execution"]["id"] for line in lines(path)} == {"earlier", "old", "bad"}
    path.write_text('{"cut off at the first line')
    filled.delete_ended(0, archive=path)
    assert [line["execution"]["id"] for line in lines(path)] == ["new"]


def test_an_archive_that_cannot_be_written_deletes_nothing(filled, tmp_path):
    with pytest.raises(OSError, match="No such file or directory"):
        filled.delete_ended(DAY, archive=tmp_path / "nowhere" / "archive.jsonl")
    assert len(names(filled)) == 4


def child(service, name, parent, call_id):
    """A child as the engine stores it, ended two days ago."""
    run(service, name)
    age(service, name, 2 * DAY)
    with service.runtime.store._connections.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE executions SET parent = '{parent}', parent_call = {call_id} WHERE id = '{name}'"
        )


def test_a_child_that_its_parent_still_waits_for_is_kept(service):
    child(service, "child", "parent", 0)
    service.process_execution(start(service, "parent"))
    assert service.count_ended(DAY) == 0
    assert service.delete_ended(DAY) == 0
    service.complete_call("parent", 0, 2)
    assert service.delete_ended(DAY) == 0, "the outcome has not been delivered yet"
    service.process_execution("parent")
    assert service.delete_ended(DAY) == 1
    assert names(service) == ["parent"]


def test_a_living_child_of_a_deleted_parent_goes_on_alone(service):
    run(service, "parent")
    age(service, "parent", 2 * DAY)
    start(service, "child", delay_seconds=3600)
    with service.runtime.store._connections.write() as connection:
        connection.exec_driver_sql("UPDATE executions SET parent = 'parent', parent_call = 0 WHERE id = 'child'")
    assert service.delete_ended(DAY) == 1
    row = service.runtime.store.execution("child")
    assert (row.parent, row.parent_call, row.status) == (None, None, "scheduled")


def test_what_was_started_anew_after_it_was_archived_is_not_deleted(filled):
    """Between the archive and the deletion somebody restarts it."""
    store = filled.runtime.store
    keys = store.retention.batch(filled.runtime.clock() - DAY, ["completed"], 10)
    assert [name for name, _ in keys] == ["old"]
    start(filled, "old", 5, id_reuse="restart")
    assert store.retention.delete(keys) == 0
    Worker(filled).run_until(lambda: filled.get_execution("old")["status"] == "completed")
    assert filled.get_result("old") == 6
    assert store.retention.delete(keys) == 0


def test_batches_are_small(service):
    """As many executions as have ten thousand calls together, but at least one."""
    store = service.runtime.store
    run(service, "a")
    workflow = store.workflow(store.execution("a").workflow)
    for index in range(3):
        row = ExecutionRow(f"e{index}", workflow.digest, "completed", 1, "{}", created_at=1.0, ended_at=2.0 + index)
        store.starting.start(NewExecution(row, workflow))
    with store._connections.write() as connection:
        numbers = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 6000) SELECT n FROM s"
        for index in range(2):
            connection.exec_driver_sql(
                "INSERT INTO calls (execution_id, call_id, kind, function, arguments, line, blocking, priority, "
                f"status, attempt, lost, created_at) SELECT 'e{index}', n, 'clock', '', '', 0, 0, 0, 'completed', 1, "
                f"0, 1 FROM ({numbers}) AS numbers"
            )
    assert [name for name, _ in store.retention.batch(100.0, ["completed"], 10)] == ["e0"]
    told = []
    assert service.delete_ended(DAY, deleted=told.append) == 3
    assert told == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"older_than_seconds": -1}, "older_than_seconds is -1; it must not be negative"),
        ({"older_than_seconds": float("nan")}, "finite number"),
        ({"older_than_seconds": "30d"}, "older_than_seconds is '30d'"),
        ({"older_than_seconds": 1, "statuses": ["waiting"]}, "is not 'waiting'; the statuses are completed, failed"),
        ({"older_than_seconds": 1, "limit": 0}, "limit is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_asked_for_deletes_nothing(lite_service, arguments, message):
    run(lite_service, "a")
    with pytest.raises(ValueError, match=message):
        lite_service.delete_ended(**arguments)
    assert names(lite_service) == ["a"]


@pytest.mark.parametrize("pattern", ["DELETE FROM calls", "DELETE FROM executions", "SELECT attempts"])
def test_pruning_that_is_killed_loses_nothing(database_url, tmp_path, pattern):
    service = OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config())
    run(service, "a", "b", "c")
    path = tmp_path / "archive.jsonl"
    assert run_killed(database_url, "prune", pattern, 1, path) == KILLED
    assert names(service) == ["a", "b", "c"]
    assert all(service.runtime.store.calls(name) for name in "abc")
    assert run_killed(database_url, "prune", "never", 1, path) == 0
    assert names(service) == []
    found = lines(path)
    assert {line["execution"]["id"] for line in found} == {"a", "b", "c"}
    assert all(line["calls"] for line in found)
    service.close()


def test_workers_delete_what_the_configuration_says(database_url):
    config = Config.model_validate(
        {"retention": {"delete_after_seconds": DAY, "statuses": ["completed"], "interval_seconds": 0.01}}
    )
    service = OrchestratorService(init_db(database_url, synchronous="NORMAL"), config)
    steps = []
    run(service, "old", "new")
    run(service, "bad", code="await fail('ValueError', str(n))")
    for name in ("old", "bad"):
        age(service, name, 2 * DAY)
    Worker(service, on_step=steps.append).run(once=True)
    assert names(service) == ["bad", "new"]
    assert steps.count("ended executions deleted") == 1
    service.close()


def test_a_worker_killed_while_it_cleans_has_deleted_whole_executions(database_url):
    service = OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config())
    run(service, "old")
    age(service, "old", 2 * DAY)
    assert run_killed(database_url, "clean", "DELETE FROM tags", 1) == KILLED
    assert service.get_result("old") == 2
    assert len(service.runtime.store.calls("old")) == 1
    assert run_killed(database_url, "clean", "never", 1) == 0
    assert names(service) == []
    service.close()


def test_the_command_prunes(tmp_path):
    from click.testing import CliRunner

    from durable_monty.cli import main

    service = OrchestratorService(init_db("sqlite:///durable-monty.db"), Config())
    run(service, "old", "new")
    run(service, "bad", code="await fail('ValueError', str(n))")
    for name in ("old", "bad"):
        age(service, name, 40 * DAY)

    def prune(*arguments, code=0):
        done = CliRunner().invoke(main, ["prune", *arguments])
        assert done.exit_code == code, done.output
        return done.output

    assert prune("--older-than", "30d", "--dry-run") == "2\n"
    assert prune("--older-than", "30d", "--status", "failed", "--archive", "old.jsonl") == "1\n"
    assert [line["execution"]["id"] for line in lines(tmp_path / "old.jsonl")] == ["bad"]
    assert prune("--older-than", "5w", "--status", "completed") == "1\n"
    assert names(service) == ["new"]
    assert "'soon' is no duration" in prune("--older-than", "soon", code=2)
    assert "nothing that is not in it was deleted" in prune("--older-than", "0s", "--archive", "no/where", code=2)
    assert names(service) == ["new"]
    service.close()

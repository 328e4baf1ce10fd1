"""`current_call().connection`: what a function writes and the outcome of its call become durable together, or neither."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from durable_monty import LocalExecutor, OrchestratorService, Worker, init_db
from durable_monty.config import Config
from support import policy_functions as host
from support.workers import DEADLINE_SECONDS, eventually, running

SCRIPT = Path(__file__).parent / "support" / "policy_worker.py"


@pytest.fixture
def ledger(service, database_url):
    """Its lines; the table is in the database of the executions."""
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE ledger (name TEXT)"))

    def lines():
        with engine.connect() as connection:
            return sorted(connection.scalars(text("SELECT name FROM ledger")))

    yield lines
    engine.dispose()


def run(service, code, function, executor=None, **inputs):
    execution_id = service.start_execution(code, [function], inputs)
    with running(Worker(service, executor, poll_interval=0.1)):
        return service.wait(execution_id, DEADLINE_SECONDS)


@pytest.mark.parametrize("mode", ["thread", "inline"])
def test_what_a_function_writes_is_there_once_its_call_has_ended(service, ledger, mode):
    code = "from asyncio import gather\nawait gather(*[write_once(f'{i}') for i in range(20)])"
    done = run(service, code, host.write_once, LocalExecutor(mode=mode))
    assert done["output"] == [str(i) for i in range(20)]
    assert ledger() == sorted(done["output"])
    calls = service.runtime.store.calls(done["execution_id"])
    assert all(call.batch is not None for call in calls), "each outcome was delivered and recorded so"


def test_what_a_function_that_raises_wrote_is_gone(service, ledger):
    done = run(service, "await write_and_fail('a')", host.write_and_fail)
    assert done["status"] == "failed"
    assert "ValueError: a" in done["error"]
    assert ledger() == []


def test_an_async_function_can_write_too_where_the_database_lets_it(service, ledger, database_url):
    done = run(service, "await write_once_async('a')", host.write_once_async)
    if database_url.startswith("postgresql"):
        assert (done["output"], ledger()) == ("a", ["a"])
    else:
        assert "declare it with `def`" in done["error"]
        assert ledger() == []


def test_a_function_that_commits_by_itself_is_told_not_to(service, ledger):
    done = run(service, "await write_and_commit('a')", host.write_and_commit)
    assert "leave that to durable-monty" in done["error"]


def test_what_an_attempt_writes_that_comes_too_late_is_rolled_back(postgresql_url, tmp_path):
    """On SQLite the late one would keep the other from writing for as long as it hangs."""
    release, path = tmp_path / "release", tmp_path / "notes"
    engine = create_engine(postgresql_url.replace("postgresql:", "postgresql+psycopg:"))
    with OrchestratorService(init_db(postgresql_url), Config()) as service:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE ledger (name TEXT)"))
        code = "await write_late('in time', path, release)"
        execution_id = service.start_execution(code, [host.write_late], {"path": str(path), "release": str(release)})
        with running(Worker(service)):
            assert service.wait(execution_id, DEADLINE_SECONDS)["output"] == "in time"
            release.touch()
            eventually(lambda: host.lines(path))
        with engine.connect() as connection:
            assert connection.scalars(text("SELECT name FROM ledger")).all() == []
    engine.dispose()


def test_a_process_that_has_no_database_says_so(lite_service):
    done = run(lite_service, "await write_once('a')", host.write_once, LocalExecutor(mode="process"))
    assert "RuntimeError: current_call().connection" in done["error"]
    assert "run the function on the local executor" in done["error"]


def test_a_database_in_memory_has_no_second_connection():
    with OrchestratorService(init_db("sqlite:///:memory:"), Config()) as service:
        assert "use a file or PostgreSQL" in run(service, "await write_once('a')", host.write_once)["error"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_process_killed_around_the_commit_leaves_both_or_neither(service, ledger, database_url, tmp_path, where):
    path = tmp_path / "notes"
    code = "await kill_around_commit('a', where, path)"
    inputs = {"where": where, "path": str(path)}
    execution_id = service.start_execution(code, [host.kill_around_commit], inputs)
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
    command = [sys.executable, str(SCRIPT), database_url, execution_id]
    assert subprocess.run(command, env=environment, timeout=100, check=False).returncode == -signal.SIGKILL
    status = service.runtime.store.call(execution_id, 0).status
    assert (status == "completed", ledger()) == (where == "after", ["a"] if where == "after" else [])
    assert subprocess.run(command, env=environment, timeout=100, check=False).returncode == 0
    assert service.get_result(execution_id) == "a"
    assert ledger() == ["a"]
    assert service.runtime.store.call(execution_id, 0).attempt == (1 if where == "after" else 2)

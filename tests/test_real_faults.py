"""One real fault at a time, while two workers work: everything ends as it should, and nothing has run twice.

`tests/chaos` brings about the same faults, and those that need a machine's rights, at random and for minutes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from chaos import faults
from chaos.checks import Judge
from chaos.figures import Figures
from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from durable_monty.errors import StoreError
from support import functions as host
from support import servers
from support.chaos_workflows import planned
from support.proxy import Proxy
from support.workers import DEADLINE_SECONDS, eventually, running

EXECUTIONS = 6
WORKER = Path(sys.executable).parent / "durable-monty"
TESTS = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.PostgreSQL]:
    """A server that may be hurt; it loses nothing that it has committed."""
    server = servers.PostgreSQL(tmp_path_factory.mktemp("postgresql"), is_durable=True)
    server.create()
    server.start()
    yield server
    server.stop()
    server.delete()


@pytest.fixture
def proxy(own_postgresql: servers.PostgreSQL) -> Iterator[Proxy]:
    made = Proxy(own_postgresql.port)
    yield made
    made.close()


@pytest.fixture
def place(own_postgresql: servers.PostgreSQL, proxy: Proxy) -> Any:
    """What a fault is brought about on; workers reach the database through the proxy."""
    name = f"test_{time.monotonic_ns()}"
    url = servers.new_database(own_postgresql.url, name)
    through = url.replace(str(own_postgresql.port), str(proxy.port))
    return SimpleNamespace(url=url, through=through, postgresql=own_postgresql, proxy=proxy)


def work(url: str, of_workers: str, ledger: Path, disturb: Callable[[], None]) -> Figures:
    """Start executions and two workers, disturb them while they work, and judge."""
    judge = Judge(Figures("one fault", 1))
    watching = OrchestratorService(init_db(url), Config())
    plans = [planned(number) for number in range(EXECUTIONS)]
    for plan in plans:
        watching.start_execution(plan.workflow, inputs=plan.inputs, execution_id=plan.execution_id)
    services = [OrchestratorService(init_db(of_workers), Config()) for _ in range(2)]
    with running(*(Worker(service) for service in services)):
        disturb()
        for plan in plans:
            ended_within(watching, plan.execution_id)
    for plan in plans:
        judge.look(watching, plan)
    judge.compare(ledger.read_text().splitlines())
    for service in (*services, watching):
        service.close()
    return judge.figures


def ended_within(service: OrchestratorService, execution_id: str) -> None:
    """Wait for it, through a database that may be away."""

    def has_ended() -> bool:
        with contextlib.suppress(StoreError):
            return service.get_execution(execution_id)["status"] in {"completed", "failed"}
        return False

    eventually(has_ended)


@pytest.mark.parametrize(
    "kind",
    [
        faults.PostgreSQLCrashed,
        faults.PostgreSQLRestarted,
        faults.SessionsTerminated,
        faults.ConnectionsDropped,
        faults.AnswersLost,
    ],
    ids=lambda kind: kind.kind.replace(" ", "-"),
)
def test_a_fault_of_the_database_costs_nothing(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any):
    ledger = tmp_path / "ledger.txt"
    monkeypatch.setenv("LEDGER", str(ledger))
    fault = kind(place)

    def disturb() -> None:
        # In the middle of it.
        eventually(ledger.exists)
        fault.inject()
        with contextlib.suppress(AssertionError):
            if kind is faults.AnswersLost:
                eventually(lambda: place.proxy.lost_answers >= 2)
            elif kind is faults.ConnectionsDropped:
                eventually(lambda: place.proxy.dropped >= 6)
            else:
                threading.Event().wait(0.5)
        fault.heal()

    figures = work(place.url, place.through, ledger, disturb)
    assert figures.executions == EXECUTIONS
    assert figures.repeated == {}
    if kind is faults.AnswersLost:
        assert place.proxy.lost_answers >= 2
    if kind is faults.ConnectionsDropped:
        assert place.proxy.dropped >= 6


def test_a_sqlite_database_that_another_process_has_locked_costs_nothing(tmp_path, monkeypatch):
    ledger, database = tmp_path / "ledger.txt", tmp_path / "locked.db"
    monkeypatch.setenv("LEDGER", str(ledger))
    fault = faults.SQLiteLocked(SimpleNamespace(database=database))

    def disturb() -> None:
        eventually(ledger.exists)
        fault.inject()
        written = ledger.read_bytes()
        # Functions that run may finish; nothing new can begin.
        threading.Event().wait(1.0)
        assert ledger.read_bytes().startswith(written)
        fault.heal()

    figures = work(f"sqlite:///{database}", f"sqlite:///{database}", ledger, disturb)
    assert figures.repeated == {}


def test_a_worker_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(tmp_path, request):
    """The kernel refuses its files to grow: what SQLite sees of a full disk, without one."""
    url = f"sqlite:///{tmp_path / 'full.db'}"
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "DURABLE_MONTY_STORE__URL": url}
    with OrchestratorService(init_db(url), Config()) as service:
        process = subprocess.Popen([WORKER, "worker"], env=environment, cwd=tmp_path, stderr=subprocess.PIPE)
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        first = service.start_execution("await add(1, 2)", [host.add])
        assert service.wait(first, DEADLINE_SECONDS)["output"] == 3
        _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, most))
        code = "from asyncio import gather\nsum(await gather(*[add(i, 1) for i in range(100)]))"
        execution_id = service.start_execution(code, [host.add])
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        assert "WARNING" in said
        assert "the database does not answer, trying again" in said
        assert "has space" in said
        assert service.get_execution(execution_id)["status"] != "completed"
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        assert service.wait(execution_id, DEADLINE_SECONDS)["output"] == 5050
        assert process.poll() is None
        process.kill()
        process.stderr.close()


def test_a_database_that_vanishes_without_a_word_is_noticed(postgresql_url):
    """The kernel is asked to look, and how often; what the URL says counts more."""
    for url, expected in ((postgresql_url, "10"), (f"{postgresql_url}?keepalives_idle=33", "33")):
        store = init_db(url)
        with store._connections.read() as connection:
            raw = connection.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            parameters = raw.info.get_parameters()
        assert parameters["keepalives_idle"] == expected
        assert int(parameters["tcp_user_timeout"]) <= 20_000
        store.close()

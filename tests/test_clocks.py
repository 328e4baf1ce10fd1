"""Machines whose clocks are wrong: on PostgreSQL everything goes by the server's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from support import functions as host
from support.workers import eventually

SHIFTED = Path(__file__).parent / "support" / "shifted_clock.py"
WORKER = Path(sys.executable).parent / "durable-monty"
HOUR_SECONDS = 3600
pytestmark = pytest.mark.slow


@pytest.fixture
def service(postgresql_url: str):
    with OrchestratorService(init_db(postgresql_url), Config()) as opened:
        yield opened


@pytest.fixture
def start_worker(postgresql_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Starts a worker process whose clock is so many seconds off."""

    def start(seconds: int) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(SHIFTED.parent.parent),
            "DURABLE_MONTY_STORE__URL": postgresql_url,
            "DURABLE_MONTY_WORKER__LEASE_SECONDS": "3",
        }
        command = [sys.executable, SHIFTED, str(seconds), WORKER, "worker"]
        process = subprocess.Popen(command, env=environment, cwd=tmp_path)
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)

    return start


@pytest.mark.parametrize(
    "seconds", [HOUR_SECONDS, pytest.param(-HOUR_SECONDS, marks=pytest.mark.chaos)], ids=["ahead", "late"]
)
def test_a_worker_whose_clock_is_an_hour_off_does_its_work_and_takes_none_away(
    service: OrchestratorService, start_worker: Callable[[int], None], tmp_path: Path, seconds: int
) -> None:
    """It neither takes the other worker for dead, whose call runs meanwhile, nor timers and time limits for over."""
    begun, release = tmp_path / "begun", tmp_path / "release"
    held = service.start_execution(
        "await hold(begun, release)", [host.hold], {"begun": str(begun), "release": str(release)}
    )
    start_worker(0)
    eventually(begun.exists)
    start_worker(seconds)
    store = service.runtime.store
    eventually(lambda: len(store.list_workers()) == 2)
    now = service.runtime.clock()
    assert all(abs(lease_until - now) < 60 for _, lease_until in store.list_workers())
    code = (
        "from asyncio import sleep\nfrom time import time\na = time()\nawait sleep(0.2)\n[a, await add(1, 2), time()]"
    )
    for _ in range(4):
        before = time.time()
        execution_id = service.start_execution(code, [host.add])
        began_at, added, ended_at = service.wait(execution_id, 30)["output"]
        assert added == 3
        assert before - 5 < began_at <= ended_at < time.time() + 5
    release.touch()
    assert service.wait(held, 30)["output"] >= 1
    assert begun.read_text().split() == ["1"], "it was not run again"


@pytest.mark.parametrize("seconds", [HOUR_SECONDS, -HOUR_SECONDS], ids=["ahead", "late"])
def test_what_a_machine_with_a_wrong_clock_starts_begins_at_once(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    true_time = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: true_time() + seconds)
        with OrchestratorService(init_db(postgresql_url), Config()) as wrong:
            execution_id = wrong.start_execution("await add(1, 2)", [host.add])
    with OrchestratorService(init_db(postgresql_url), Config()) as right:
        Worker(right).run(until_complete=True)
        assert right.get_result(execution_id) == 3
        assert abs(right.get_execution(execution_id)["created_at"] - true_time()) < 60

"""Heartbeats over Redis: heard by the worker, and the end of a job that falls silent."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, RQExecutor, Worker, init_db
from durable_monty.config import Config
from durable_monty.models import Heartbeat
from support import policy_functions as host
from support import servers
from support.workers import DEADLINE_SECONDS, eventually, running

TESTS = Path(servers.__file__).parent.parent


@pytest.fixture(scope="module")
def valkey():
    with servers.valkey() as server:
        yield server


@contextmanager
def rq_worker(valkey, queue):
    """A `rq worker` as a user starts it."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [str(Path(sys.executable).parent / "rq"), "worker", queue, "--url", valkey.url, "--quiet"]
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def service(tmp_path):
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/rq.db", synchronous="NORMAL"), Config()) as opened:
        yield opened


def test_a_silent_job_is_stopped_in_rq_and_its_progress_goes_to_the_next_attempt(service, valkey, tmp_path):
    path, release = str(tmp_path / "notes"), str(tmp_path / "release")
    executor = RQExecutor(queue_name="beats", redis_url=valkey.url)
    code = "await climbing(path, release)"
    execution_id = service.start_execution(code, [host.climbing], {"path": path, "release": release})
    with rq_worker(valkey, "beats"), running(Worker(service, executor, poll_interval=0.1)):
        attempt, start = service.wait(execution_id, 2 * DEADLINE_SECONDS)["output"]
    assert (attempt > 1, start) == (True, 3)
    assert host.lines(path)[:2] == ["1 from 0", "2 from 3"]
    (_, _, _, failure) = service.runtime.store.failed_attempts(execution_id)[0]
    assert "sent no heartbeat for 1 s" in failure


def test_progress_is_seen_while_a_job_runs(service, valkey, tmp_path):
    release = tmp_path / "release"
    inputs = {"path": str(tmp_path / "notes"), "release": str(release)}
    executor = RQExecutor(queue_name="seen", redis_url=valkey.url)
    execution_id = service.start_execution("await report_and_hang(path, release)", [host.report_and_hang], inputs)
    with rq_worker(valkey, "seen"), running(Worker(service, executor, poll_interval=0.1)):
        eventually(lambda: [call.progress for call in service.runtime.store.calls(execution_id)] == ['{"page":7}'])
        release.touch()
        assert service.wait(execution_id, 2 * DEADLINE_SECONDS)["output"] is None


def test_only_the_newest_heartbeat_of_a_job_stays_in_the_stream(valkey):
    executor = RQExecutor(queue_name="few", redis_url=valkey.url)
    stream = executor.settings.stream
    for number in range(5):
        executor._connection.xadd(stream, {"job": "e-0-1", "beat": f"beat {number}"})
        (heard,) = executor.poll([], 1.0)
        assert heard == Heartbeat("e-0-1", f"beat {number}".encode())
    assert executor.stats()["replies"] == 1
    executor._connection.xadd(stream, {"job": "e-0-1", "reply": "reply"})
    (outcome,) = executor.poll([], 1.0)
    executor.complete([type("Done", (), {"job_id": outcome.job_id})])
    assert executor.stats()["replies"] == 0
    executor.stop(0)

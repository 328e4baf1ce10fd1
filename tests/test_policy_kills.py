"""Every policy of a call holds when the process that follows it is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config
from support import policy_functions as host
from support.workers import DEADLINE_SECONDS, eventually

SCRIPT = Path(__file__).parent / "support" / "policy_worker.py"


@pytest.fixture
def service(tmp_path):
    with OrchestratorService(init_db(f"sqlite:///{tmp_path / 'test.db'}", synchronous="NORMAL"), Config()) as opened:
        yield opened


@contextmanager
def worker(service, execution_id):
    """A worker process; killed at the end if it has not ended."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
    process = subprocess.Popen([sys.executable, str(SCRIPT), service.runtime.store.url, execution_id], env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def finished(service, execution_id):
    """What a worker that is not killed makes of it."""
    with worker(service, execution_id):
        return service.wait(execution_id, DEADLINE_SECONDS)["output"]


def killed_when(service, code, function, is_time, **inputs):
    """Start an execution, and kill its worker when it is time."""
    execution_id = service.start_execution(code, [function], inputs)
    with worker(service, execution_id) as process:
        eventually(lambda: is_time(execution_id))
        assert process.poll() is None
    return execution_id


CATCH = "try:\n    found = {call}\nexcept TimeoutError as e:\n    found = str(e)\nfound"


def test_the_time_for_all_attempts_goes_on_while_no_worker_runs(service, tmp_path):
    code = CATCH.format(call="await endless(release)")
    execution_id = killed_when(
        service,
        code,
        host.endless,
        lambda key: any(call.status == "submitting" for call in service.runtime.store.calls(key)),
        release=str(tmp_path / "release"),
    )
    assert "did not end within 0.5 s in all" in finished(service, execution_id)


def test_a_timeout_holds_for_the_attempt_that_follows_a_killed_one(service, tmp_path):
    code = CATCH.format(call="await slow_at_first(path, release)")
    path, release = str(tmp_path / "notes"), str(tmp_path / "release")
    execution_id = killed_when(
        service, code, host.slow_at_first, lambda _: host.lines(path), path=path, release=release
    )
    assert finished(service, execution_id) >= 2


def test_retries_and_their_predicate_survive(service, tmp_path):
    path = str(tmp_path / "notes")
    code = "await choosy(path, ['again'])"
    execution_id = killed_when(service, code, host.choosy, lambda _: host.lines(path), path=path)
    assert finished(service, execution_id) >= 2


def test_progress_outlives_the_process_that_reported_it(service, tmp_path):
    path, release = str(tmp_path / "notes"), str(tmp_path / "release")

    def has_progress(key):
        return any(call.progress for call in service.runtime.store.calls(key))

    code = "await report_and_hang(path, release)"
    execution_id = killed_when(service, code, host.report_and_hang, has_progress, path=path, release=release)
    assert finished(service, execution_id) == {"page": 7}
    assert host.lines(path) == ["1 from None", "2 from {'page': 7}"]


def test_a_concurrency_limit_is_free_again_after_its_holders_were_killed(service, tmp_path):
    path = str(tmp_path / "notes")
    code = "from asyncio import gather\nawait gather(*[two_at_a_time(path, f'{i}') for i in range(6)])"
    execution_id = killed_when(service, code, host.two_at_a_time, lambda _: len(host.lines(path)) >= 3, path=path)
    assert finished(service, execution_id) == [str(i) for i in range(6)]


def test_a_rate_is_remembered_over_the_death_of_every_worker(service, tmp_path):
    path = str(tmp_path / "notes")
    code = "from asyncio import gather\nawait gather(*[paced(path) for i in range(6)])"
    execution_id = killed_when(service, code, host.paced, lambda _: len(host.lines(path)) >= 2, path=path)
    assert len(finished(service, execution_id)) == 6


def test_the_options_of_one_call_survive(service, tmp_path):
    """The function that carries them is in the snapshot; the options of a call that was made are in its row."""
    path, release = str(tmp_path / "notes"), str(tmp_path / "release")
    code = (
        "from durable_monty.flow import options\n"
        "quick = options(report_and_hang, priority=7, timeout_seconds=50)\n"
        "[await quick(path, release), await quick(path, release)]"
    )

    def has_begun(_):
        return host.lines(path)

    execution_id = killed_when(service, code, host.report_and_hang, has_begun, path=path, release=release)
    Path(release).touch()
    finished(service, execution_id)
    calls = service.runtime.store.calls(execution_id)
    assert [(call.priority, call.timeout_seconds) for call in calls] == [(7, 50.0)] * 2

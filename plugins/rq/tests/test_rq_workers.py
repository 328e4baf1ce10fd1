"""Several `durable-monty worker` processes on one database, with RQ behind them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config
from support import functions as host
from support.workers import DEADLINE_SECONDS, eventually

TESTS = Path(host.__file__).parent.parent
COMMAND = [Path(sys.executable).parent / "durable-monty", "worker"]
pytestmark = pytest.mark.slow
SIMPLE = ("-w", "rq.SimpleWorker")
HOLD = "a = await hold(begun, release)\nawait add(a, 1)"


class Cluster:
    """Worker processes of one configuration, and a service to look at their database."""

    def __init__(self, folder, database_url, rig_url, queue, stream):
        self.service = OrchestratorService(init_db(database_url), Config())
        self.begun, self.release = folder / "begun", folder / "release"
        self._folder = folder
        self._processes = []
        (folder / "durable-monty.toml").write_text(
            f'executor = "rq"\n[store]\nurl = "{database_url}"\n[worker]\nlease_seconds = 2\n[executors.rq]\n'
            f'redis_url = "{rig_url}"\nqueue = "{queue}"\nkey_prefix = "{stream}"\n'
            "claim_after_seconds = 1\n"
        )

    def start_worker(self):
        log = (self._folder / f"worker-{len(self._processes)}.log").open("wb")
        process = subprocess.Popen(
            COMMAND, env={**os.environ, "PYTHONPATH": str(TESTS)}, cwd=self._folder, stdout=log, stderr=log
        )
        log.close()
        self._processes.append(process)
        return process

    def start_held(self):
        """An execution whose first call is running when this returns."""
        inputs = {"begun": str(self.begun), "release": str(self.release)}
        execution_id = self.service.start_execution(HOLD, [host.hold, host.add], inputs)
        eventually(self.begun.exists)
        return execution_id

    def logs(self):
        return "".join(file.read_text() for file in self._folder.glob("worker-*.log"))

    def close(self):
        for process in self._processes:
            process.kill()
            process.wait()
        self.service.close()


@pytest.fixture
def cluster(database_url, valkey, listening, tmp_path, rig):
    made = Cluster(tmp_path, database_url, valkey.url, listening(*SIMPLE), rig.stream)
    yield made
    made.close()


def test_an_orderly_stop_gives_up_claims_and_leaves_remote_jobs_running(cluster):
    first = cluster.start_worker()
    execution_id = cluster.start_held()
    first.send_signal(signal.SIGTERM)
    assert first.wait(DEADLINE_SECONDS) == 0
    assert cluster.logs() == ""
    store = cluster.service.runtime.store
    assert store.execution(execution_id).worker is None
    assert {lease_until for _, lease_until in store.list_workers()} == {0.0}
    (row,) = store.calls(execution_id)
    assert (row.status.is_terminal, row.attempt) == (False, 1)
    cluster.release.touch()
    cluster.start_worker()
    assert cluster.service.wait(execution_id, DEADLINE_SECONDS)["output"] == 2
    assert cluster.begun.read_text().split() == ["1"], "it was neither stopped nor run again"


def test_the_open_jobs_of_a_killed_worker_are_taken_over_and_not_run_again(cluster):
    first = cluster.start_worker()
    execution_id = cluster.start_held()
    first.kill()
    first.wait()
    cluster.start_worker()
    cluster.release.touch()
    assert cluster.service.wait(execution_id, DEADLINE_SECONDS)["output"] == 2
    assert cluster.begun.read_text().split() == ["1"]


def test_a_worker_that_gives_no_sign_of_life_is_taken_over_after_its_lease_and_does_no_harm_later(cluster):
    """Stopped, not dead, as a machine that is cut off: only the lease tells."""
    silent = cluster.start_worker()
    execution_id = cluster.start_held()
    silent.send_signal(signal.SIGSTOP)
    cluster.start_worker()
    cluster.release.touch()
    assert cluster.service.wait(execution_id, DEADLINE_SECONDS)["output"] == 2
    calls = cluster.service.runtime.store.calls(execution_id)
    silent.send_signal(signal.SIGCONT)
    other = cluster.service.start_execution("await add(20, 3)", [host.add])
    assert cluster.service.wait(other, DEADLINE_SECONDS)["output"] == 23
    silent.send_signal(signal.SIGTERM)
    assert silent.wait(DEADLINE_SECONDS) == 0
    assert cluster.service.runtime.store.calls(execution_id) == calls
    assert cluster.begun.read_text().split() == ["1"]


def test_two_worker_processes_share_the_work_and_no_call_runs_twice(cluster, tmp_path):
    path = tmp_path / "notes.txt"
    code = (
        "from asyncio import gather\nfirst = await gather(*[note(path, f'{name}.{i}') for i in range(3)])\n"
        "[*first, await note(path, f'{name}.end')]"
    )
    for _ in range(2):
        cluster.start_worker()
    names = [f"e{number}" for number in range(12)]
    for name in names:
        cluster.service.start_execution(code, [host.note], {"path": str(path), "name": name}, execution_id=name)
    for name in names:
        expected = [f"{name}.{end}" for end in (0, 1, 2, "end")]
        assert cluster.service.wait(name, DEADLINE_SECONDS)["output"] == expected
    ran = Counter(path.read_text().split())
    assert len(ran) == 4 * len(names)
    assert set(ran.values()) == {1}

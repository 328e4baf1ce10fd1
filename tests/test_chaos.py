"""Whole machines' worth of processes killed at random: every execution ends with the right result all the same.

Two `durable-monty worker` processes, two stock `rq worker` processes, a real PostgreSQL and a real Valkey. A killer
sends SIGKILL to one of the four every half second, sometimes to an RQ worker with its work horse, sometimes to the
horse alone, and now and then it kills the Valkey server; a supervisor starts what died again. `nox -s chaos` runs the long form;
`CHAOS_SEED` chooses what is killed when, as far as the operating system lets that be repeated.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config
from durable_monty.errors import ExecutionFailed
from support import servers
from support.chaos_workflows import mixture
from support.supervised import Supervised

QUEUE = "chaos"
CONFIGURATION = """
executor = "rq"

[store]
url = "{database_url}"

[worker]
lease_seconds = 3

[executors.rq]
redis_url = "{redis_url}"
queue = "{queue}"
lost_after_seconds = 6
sweep_interval_seconds = 1
claim_after_seconds = 3
"""


@dataclass
class Figures:
    """What a run has to say.

    Attributes:
        kills: How often each process was killed.
        job_kills_at: When something was killed that jobs live in, in seconds since the epoch.
        repeated: Calls that ran more than once, by execution and call.
    """

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    job_kills_at: list[float] = field(default_factory=list)
    executions: int = 0
    calls: int = 0
    repeated: dict[tuple[str, int], int] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        kills = ", ".join(f"{count} x {name}" for name, count in sorted(self.kills.items()))
        return (
            f"seed {self.seed}: {self.executions} executions with {self.calls} calls in {self.seconds:.0f} s, "
            f"{self.kills.total()} kills ({kills}), {len(self.repeated)} calls ran more than once"
        )


class Cluster:
    """The processes, and what kills them."""

    def __init__(self, folder: Path, database_url: str, valkey: servers.Valkey, figures: Figures) -> None:
        self._valkey = valkey
        self._figures = figures
        self._random = random.Random(figures.seed)
        config = folder / "durable-monty.toml"
        config.write_text(CONFIGURATION.format(database_url=database_url, redis_url=valkey.url, queue=QUEUE))
        tests = Path(__file__).parent
        environment = {**os.environ, "PYTHONPATH": str(tests), "LEDGER": str(folder / "ledger.txt")}
        scripts = Path(sys.executable).parent
        worker = [str(scripts / "durable-monty"), "worker", "--config", str(config)]
        rq = [str(scripts / "rq"), "worker", QUEUE, "--url", valkey.url, "--quiet"]
        self._workers = [
            Supervised(f"durable-monty {n}", worker, environment, folder / f"worker-{n}.log") for n in (1, 2)
        ]
        self._rq = [Supervised(f"rq {n}", rq, environment, folder / f"rq-{n}.log") for n in (1, 2)]

    def supervise(self) -> None:
        for process in (*self._workers, *self._rq):
            process.ensure_running()

    def kill_one(self) -> None:
        victim = self._random.choice((*self._workers, *self._rq))
        if victim in self._workers:
            self._count(victim.name, victim.kill())
            return
        how = self._random.choice(("process", "process tree", "work horse"))
        killed = victim.kill(itself=how != "work horse", children=how != "process")
        self._count(f"{victim.name} ({how})", killed)
        self._figures.job_kills_at.append(time.time())

    def restart_valkey(self) -> None:
        self._valkey.kill()
        self._count("valkey", 1)
        self._figures.job_kills_at.append(time.time())
        self._valkey.start()

    def stop(self) -> None:
        for process in (*self._workers, *self._rq):
            process.kill(children=True)

    def _count(self, name: str, killed: int) -> None:
        if killed:
            self._figures.kills[name] += 1


def run(
    folder: Path,
    database_url: str,
    *,
    count: int,
    keeps_data: bool,
    kills: int,
    kills_per_restart: int,
    timeout_seconds: float,
) -> Figures:
    """Kill until every execution has ended, at most `kills` times, and check everything that was promised.

    Args:
        kills_per_restart: After so many kills the Valkey server is killed and started again, each time.
    """
    figures = Figures(int(os.environ.get("CHAOS_SEED", "1")))
    service = OrchestratorService(init_db(database_url), Config())
    planned = mixture(count)
    for execution_id, workflow, inputs, _ in planned:
        service.start_execution(workflow, inputs=inputs, execution_id=execution_id)
    began_at, restart_at = time.time(), kills_per_restart
    with servers.valkey(keeps_data=keeps_data) as valkey:
        cluster = Cluster(folder, database_url, valkey, figures)
        try:
            cluster.supervise()
            while not service.runtime.store.is_idle():
                assert time.time() - began_at < timeout_seconds, f"not finished in time; {figures}"
                time.sleep(0.5)
                if figures.kills.total() < kills:
                    cluster.kill_one()
                    if figures.kills.total() >= restart_at:
                        cluster.restart_valkey()
                        restart_at = figures.kills.total() + kills_per_restart
                cluster.supervise()
        finally:
            cluster.stop()
    figures.seconds = time.time() - began_at
    check(service, planned, (folder / "ledger.txt").read_text(), figures)
    service.close()
    return figures


def check(service: OrchestratorService, planned: list, ledger: str, figures: Figures) -> None:
    runs = Counter((line.split()[0], int(line.split()[1])) for line in ledger.splitlines())
    for execution_id, _, _, expected in planned:
        if execution_id.endswith("-failing"):
            with pytest.raises(ExecutionFailed, match=expected):
                service.get_result(execution_id)
        else:
            assert service.get_result(execution_id) == expected, execution_id
        calls = service.runtime.store.calls(execution_id)
        places = [(call.batch, call.position) for call in calls]
        assert None not in [place for pair in places for place in pair], f"a call of {execution_id} was not delivered"
        assert len(set(places)) == len(places), f"two calls of {execution_id} were delivered in one place"
        for call in calls:
            ran = runs.pop((execution_id, call.call_id), 0)
            assert ran >= 1, f"call {call.call_id} of {execution_id} has an outcome and never ran"
            if ran > 1:
                figures.repeated[execution_id, call.call_id] = ran
                assert call.ended_at is not None
                in_flight = [at for at in figures.job_kills_at if call.created_at <= at <= call.ended_at]
                assert in_flight, f"call {call.call_id} of {execution_id} ran {ran} times although no kill hit it"
        figures.calls += len(calls)
    assert not runs, f"calls ran that are in no log: {runs}"
    figures.executions = len(planned)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("keeps_data", [True, False], ids=["redis-with-aof", "redis-without-persistence"])
def test_nothing_is_lost_while_processes_are_killed(tmp_path, postgresql_url, keeps_data):
    """The short form."""
    figures = run(
        tmp_path,
        postgresql_url,
        count=20,
        keeps_data=keeps_data,
        kills=12,
        kills_per_restart=6,
        timeout_seconds=240,
    )
    assert figures.kills.total() >= 12
    assert figures.kills["valkey"] >= 1


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("keeps_data", [True, False], ids=["redis-with-aof", "redis-without-persistence"])
def test_nothing_is_lost_in_a_long_run(tmp_path, postgresql_url, keeps_data, capsys):
    figures = run(
        tmp_path,
        postgresql_url,
        count=200,
        keeps_data=keeps_data,
        kills=10**9,
        kills_per_restart=40,
        timeout_seconds=3000,
    )
    assert figures.kills["valkey"] >= 1
    with capsys.disabled():
        print(f"\n{'with AOF' if keeps_data else 'without persistence'}: {figures}")

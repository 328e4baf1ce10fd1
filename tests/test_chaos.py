"""Whole machines' worth of processes killed at random: every execution ends with the right result all the same.

Two `durable-monty worker` processes, two stock `rq worker` processes, a real PostgreSQL and a real Valkey. Every half
second one of the four gets SIGKILL, sometimes an RQ worker with its work horse, sometimes the horse alone, and now and
then it is the Valkey server; a supervisor starts what died again. `nox -s chaos` adds everything else that can happen to
machines, see `tests/chaos`; `nox -s chaos -- kills` runs the long form of these tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.faults import RedisRestarted, RQKilled, WorkerKilled
from chaos.figures import Figures
from chaos.installations import WithRQ
from chaos.run import run
from support import servers

CHAOS = Path(__file__).parent / "chaos"
FORMS = pytest.mark.parametrize("keeps_data", [True, False], ids=["redis-with-aof", "redis-without-persistence"])


def kill(
    folder: Path,
    database_url: str,
    *,
    keeps_data: bool,
    count: int,
    at_least: int,
    at_most: int = 10**9,
    grace_seconds: float,
) -> Figures:
    """Kill something every half second until so many executions have ended and so many faults were brought about."""
    figures = Figures("with AOF" if keeps_data else "without persistence", int(os.environ.get("CHAOS_SEED", "1")))
    with servers.valkey(keeps_data=keeps_data) as valkey:
        on = WithRQ(folder, figures, database_url, valkey)
        faults = [*(WorkerKilled(on) for _ in range(6)), *(RQKilled(on) for _ in range(6)), RedisRestarted(on)]
        pace = {"open_at_once": count, "pause_seconds": (0.4, 0.6), "grace_seconds": grace_seconds}
        run(on, faults, count=count, at_least=at_least, at_most=at_most, **pace)
    return figures


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "keeps_data",
    [
        pytest.param(True, id="redis-with-aof"),
        pytest.param(False, id="redis-without-persistence", marks=pytest.mark.thorough),
    ],
)
def test_nothing_is_lost_while_processes_are_killed(tmp_path, postgresql_url, keeps_data):
    """The short form."""
    figures = kill(
        tmp_path, postgresql_url, keeps_data=keeps_data, count=20, at_least=13, at_most=13, grace_seconds=240
    )
    assert figures.executions >= 20
    assert figures.faults.total() >= 13
    assert figures.faults["Redis restarted"] >= 1


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@FORMS
def test_nothing_is_lost_in_a_long_run(tmp_path, postgresql_url, keeps_data, capsys):
    figures = kill(tmp_path, postgresql_url, keeps_data=keeps_data, count=200, at_least=50, grace_seconds=3000)
    assert figures.faults["Redis restarted"] >= 1
    with capsys.disabled():
        print(f"\n{figures}")


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("redis", ["aof", "memory"])
def test_nothing_is_lost_by_real_faults(redis):
    """Half a minute of what `nox -s chaos` does for longer."""
    command = [sys.executable, str(CHAOS), "--minutes", "0.5", "--redis", redis]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout
    assert "every call was delivered once" in done.stdout

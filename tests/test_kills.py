"""Processes that are killed between any two transactions: nothing is lost, nothing is delivered twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config

BOUNDARIES = Path(__file__).parent / "support" / "boundaries.py"
WRITES = {
    *(
        "starting.start",
        "register",
        "claim",
        "commit",
        "claim_calls",
        "store_tokens",
        "put_back",
        "reattempt",
        "release",
    ),
    *("submit", "complete"),
}
SCRIPT = Path(__file__).parent / "support" / "killed_worker.py"
NAMES = [
    "attempts recorded",
    "turns recorded",
    "jobs completed",
    "calls submitted",
    "due turns recorded",
    "calls claimed",
]


def start_worker(url: str, folder: Path, step: str, number: int) -> int:
    """Run a worker that kills itself at the `number`th `step`; returns its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent), "NOTES": str(folder / "notes.txt")}
    command = [sys.executable, str(SCRIPT), url, step, str(number)]
    return subprocess.run(command, env=environment, timeout=100, check=False).returncode


@pytest.mark.parametrize("step", NAMES)
@pytest.mark.parametrize("number", [1, pytest.param(3, marks=pytest.mark.chaos)])
def test_a_worker_killed_after_any_step_loses_nothing(database_url, tmp_path, step, number):
    codes = [start_worker(database_url, tmp_path, step, number)]
    while codes[-1] == -signal.SIGKILL and len(codes) < 4:
        codes.append(start_worker(database_url, tmp_path, step, number + 2 * len(codes)))
    codes.append(start_worker(database_url, tmp_path, "never", 0))
    assert codes[-1] == 0
    service = OrchestratorService(init_db(database_url), Config())
    expected = [["a", "b0", "b1", "b2", "c", 3], ["z"]]
    assert [service.get_result(name) for name in ("many", "one")] == expected
    delivered = [call for call in service.runtime.store.calls("many") if call.batch is not None]
    assert len(delivered) == len({call.call_id for call in delivered}) == 9, "six functions, three timers"
    order = sorted((call.batch, call.position) for call in delivered)
    assert len(set(order)) == len(order), "every delivery has a place of its own"
    notes = Counter((tmp_path / "notes.txt").read_text().split())
    assert set(notes) == {"a", "b0", "b1", "b2", "c", "z"}
    assert all(count <= len(codes) for count in notes.values())
    service.close()


def test_what_was_recorded_before_a_kill_is_not_run_again(database_url, tmp_path):
    assert start_worker(database_url, tmp_path, "turns recorded", 2) == -signal.SIGKILL
    service = OrchestratorService(init_db(database_url), Config())
    recorded = {
        call.arguments
        for name in ("many", "one")
        for call in service.runtime.store.calls(name)
        if call.status == "completed" and call.kind == "function"
    }
    assert recorded
    before = Counter((tmp_path / "notes.txt").read_text().split())
    assert start_worker(database_url, tmp_path, "never", 0) == 0
    after = Counter((tmp_path / "notes.txt").read_text().split())
    for text in before:
        if any(f'"{text}"' in arguments for arguments in recorded):
            assert after[text] == before[text], f"{text} was finished and recorded, and has run again"
    service.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "extent", [pytest.param("some", marks=pytest.mark.slow), pytest.param("all", marks=pytest.mark.chaos)]
)
def test_a_worker_killed_between_any_two_transactions_loses_nothing_and_runs_nothing_twice(
    database_url, tmp_path, extent
):
    """After each transaction and each hook in turn, and the heir right after it has taken over.

    The executor's back end outlives the workers and knows its jobs, so that every function runs exactly once. `some`:
    the first and the middle passage of each boundary; `all`: every passage.
    """
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
    command = [sys.executable, str(BOUNDARIES), database_url, str(tmp_path), *(["all"] if extent == "all" else [])]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=800, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name for name, *_ in lines} == WRITES
    heirs = Counter()
    with OrchestratorService(init_db(database_url), Config()) as service:
        for name, number, execution_id, codes in lines:
            if number == 1:
                assert codes[0] == -signal.SIGKILL, f"nobody was killed after the first {name}"
            heirs[codes[1]] += 1
            assert codes[2] == 0
            assert service.get_result(execution_id) == ["a", "b0", "b1", "b2", 3], (name, number)
            calls = service.runtime.store.calls(execution_id)
            places = {(call.batch, call.position) for call in calls if call.batch is not None}
            assert len(calls) == len(places) == 8, f"five functions, three timers, each in a place of its own: {calls}"
            notes = Counter((tmp_path / f"{execution_id}.notes").read_text().split())
            assert notes == Counter(["a", "b0", "b1", "b2"]), f"killed after {name} {number}"
    assert heirs[-signal.SIGKILL] > len(lines) / 2, "the heirs were killed too"

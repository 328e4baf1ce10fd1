"""Every feature of workflows with processes that are killed in the middle of it, at one step of the worker after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config

SCRIPT = Path(__file__).parent / "support" / "killed_features.py"


@pytest.fixture
def killed(tmp_path):
    """Runs a feature; gives a service on what came of it, and what its functions noted."""
    opened = []

    def run(feature, least_kills):
        url, notes = f"sqlite:///{tmp_path / 'it.db'}", tmp_path / "notes.txt"
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
        command = [sys.executable, str(SCRIPT), url, str(notes), feature]
        done = subprocess.run(command, env=environment, timeout=170, check=True, capture_output=True, text=True)
        places = json.loads(done.stdout.splitlines()[-1])
        assert len(places) >= least_kills, places
        opened.append(OrchestratorService(init_db(url), Config()))
        _check_log(opened[0], "it")
        return opened[0], Counter(notes.read_text().splitlines())

    yield run
    for service in opened:
        service.close()


def _check_log(service, execution_id):
    """Every outcome was delivered at most once, in a place of its own, and nothing is open."""
    rows = service.runtime.store.calls(execution_id)
    order = [(row.batch, row.position) for row in rows if row.batch is not None and row.batch >= 0]
    assert len(set(order)) == len(order)
    assert all(row.status.is_terminal for row in rows)


def functions_run(service, execution_id="it"):
    """Calls of functions that came to a value, by their last argument."""
    rows = service.runtime.store.calls(execution_id, "function")
    return [json.loads(row.arguments)[0][-1] for row in rows if row.status == "completed"]


def test_losers_of_races_and_timeouts_clean_up_and_go_no_further(killed):
    service, notes = killed("race", 5)
    assert service.get_result("it") == [[1, "won"], "late", "end"]
    assert "went on" not in notes
    naps = [row for row in service.runtime.store.calls("it", "function") if row.function.endswith(".nap")]
    assert [row.status for row in naps] == ["cancelled", "cancelled"]


def test_signals_sent_before_at_and_after_a_kill_come_once_and_in_order(killed):
    service, _ = killed("signals", 5)
    result = service.get_result("it")
    assert (result[0], result[1], list(result[2])) == ([[0, 1, 2, 3], "a"], "b", [1, "c"])


def test_children_begin_end_and_are_cancelled_once(killed):
    service, _ = killed("children", 6)
    assert service.get_result("it") == [[4, 7], "bad", 0, "b"]
    assert service.get_result("alone") == 10
    statuses = {item["execution_id"]: item["status"] for item in service.list_executions()}
    assert statuses.pop("lost") == statuses.pop("left") == "cancelled"
    assert sorted(statuses.values()) == ["completed"] * 4 + ["failed"]


def test_what_is_published_and_emitted_is_told_once(killed):
    service, _ = killed("told", 4)
    assert service.published("it") == {"state": "end"}
    assert [value for _, value in service.read_stream("it", "log")] == [x for i in range(5) for x in (i, [i])]


def test_pause_resume_and_retry(killed):
    """Paused just before a kill, resumed by hand, failed, retried from its last snapshot: nothing finished runs anew."""
    service, _ = killed("steered", 4)
    assert service.get_result("it") == ["0", "1", "2", "3", "end"]
    attempts = {row.function.rpartition(".")[2]: row.attempt for row in service.runtime.store.calls("it", "function")}
    assert attempts["must_exist"] > 1
    assert service.get_execution("it")["note"].startswith("retried after FileNotFoundError")


def test_a_deadline_that_passes_lets_the_workflow_clean_up(killed):
    service, notes = killed("deadline", 3)
    found = service.get_execution("it")
    assert found["status"] == "cancelled"
    assert "deadline" in found["error"]
    assert {"begun", "cleaned", "up"} == set(notes)


def test_a_saga_undoes_in_reverse_and_each_step_once(killed):
    service, _ = killed("saga", 5)
    assert service.get_result("it") == "ValueError"
    expected = ["do 0", "do 1", "do 2", "undo do 2", "undo do 1", "undo do 0"]
    assert functions_run(service) == expected


def test_sleep_until_a_time_is_not_begun_anew(killed):
    service, _ = killed("sleep_until", 3)
    assert service.get_result("it") == ["between", True]

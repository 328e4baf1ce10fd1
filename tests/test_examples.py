"""The census, killed with SIGKILL: the result of an undisturbed run, and no finished file parsed again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "census"
SCRIPT = str(Path(sys.executable).parent / "durable-monty")
LANES = 64
"""More than the threads of the local executor: so many files may be in hand at a kill."""


def census(execution_id, *arguments):
    return [SCRIPT, "run", str(EXAMPLE / "census.py"), "--id", execution_id, *arguments]


def figures(execution_id, *arguments):
    return json.loads(subprocess.run(census(execution_id, *arguments), stdout=subprocess.PIPE, check=True).stdout)


def lines(ledger="census-ledger.txt"):
    return Path(ledger).read_text().splitlines() if Path(ledger).exists() else []


def kill_when(execution_id, moment, *arguments):
    """Start it and send SIGKILL when `moment` has come; returns the ledger at that time."""
    process = subprocess.Popen(census(execution_id, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends_at = time.monotonic() + 60
    while not moment() and process.poll() is None and time.monotonic() < ends_at:
        time.sleep(0.002)
    process.kill()
    process.wait()
    return lines()


def check(undisturbed, kills, *arguments):
    """Finish the killed execution and compare everything with the undisturbed one."""
    before = json.loads(
        subprocess.run([SCRIPT, "show", "k", "--all", "--json"], stdout=subprocess.PIPE, check=True).stdout
    )
    Path("before.json").write_text(json.dumps(before))
    Path("before-ledger.txt").write_text("".join(f"{line}\n" for line in lines()))
    assert figures("k", *arguments) == undisturbed
    parsed = Counter(lines())
    assert len(parsed) == undisturbed["files"]
    assert parsed.total() - len(parsed) <= kills * LANES
    proof = subprocess.run(
        [sys.executable, EXAMPLE / "check_ledger.py", "before.json", "before-ledger.txt"],
        stdout=subprocess.PIPE,
        check=False,
    )
    assert proof.returncode == 0, proof.stdout


def test_a_census_that_is_killed_three_times_is_finished_by_the_same_command(tmp_path):
    arguments = ("--input", "limit=120")
    undisturbed = figures("u", *arguments)
    Path("census-ledger.txt").unlink()
    for count in (1, 40, 80):
        kill_when("k", lambda count=count: len(lines()) >= count, *arguments)
    check(undisturbed, 3, *arguments)


@pytest.mark.examples
@pytest.mark.timeout(300)
def test_the_whole_census_killed_half_way(tmp_path):
    undisturbed = figures("u")
    assert undisturbed["files"] > 1000
    Path("census-ledger.txt").unlink()
    kill_when("k", lambda: len(lines()) >= undisturbed["files"] // 2)
    check(undisturbed, 1)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_the_census_survives_fifty_kills_at_random_moments(tmp_path, monkeypatch, capsys):
    """One execution for each moment, so that early and late moments are met alike."""
    moments = random.Random(7)
    arguments = ("--input", "limit=200")
    began_at = time.monotonic()
    undisturbed = figures("u", *arguments)
    seconds = time.monotonic() - began_at
    repeated = []
    for number in range(50):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        at = time.monotonic() + moments.uniform(0.1, 1.0) * seconds
        kill_when("k", lambda at=at: time.monotonic() >= at, *arguments)
        if (
            not Path("durable-monty.db").exists()
            or "k" not in subprocess.run([SCRIPT, "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
        ):
            assert figures("k", *arguments) == undisturbed
            continue
        check(undisturbed, 1, *arguments)
        repeated.append(len(lines()) - undisturbed["files"])
    with capsys.disabled():
        print(f"\n50 kills of the census: every result right, at most {max(repeated)} files parsed twice at one kill")

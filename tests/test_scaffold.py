"""`durable-monty plugin new` makes a distribution that installs, is found and keeps every promise at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import environments

ROOT = Path(__file__).parent.parent
SCRIPT = str(Path(sys.executable).parent / "durable-monty")


def run(*command, cwd=None, environment=None, code=0):
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def scaffolded(tmp_path):
    run(SCRIPT, "plugin", "new", "my_farm", cwd=tmp_path)
    return tmp_path / "durable-monty-my-farm"


@pytest.mark.thorough
def test_a_new_plug_in_installs_is_found_and_passes_the_kit(scaffolded, tmp_path):
    python = environments.new_environment(tmp_path / "environment")
    environments.install(python, environments.build(scaffolded, tmp_path / "dist"))
    command = [python, "-c", "from durable_monty.cli import main; main()"]
    listed = json.loads(run(*command, "executors", "list", "--json", cwd=tmp_path))
    assert {row["name"]: row["distribution"] for row in listed}["my_farm"] == "durable-monty-my-farm"
    Path("durable-monty.toml").write_text('executor = "my_farm"\n')
    assert "my_farm (my_farm): ok" in run(*command, "executors", "check", cwd=tmp_path)
    told = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=scaffolded)
    assert "passed" in told
    assert "skipped" not in told


def test_the_kit_runs_on_a_configured_executor(tmp_path):
    (tmp_path / "durable-monty.toml").write_text('[executors.cpu]\nplugin = "local"\nworkers = 3\n')
    told = run(SCRIPT, "plugin", "test", "cpu", "-k", "comes_back_as_it_was or descri", cwd=tmp_path)
    assert "passed" in told


def test_a_configured_executor_that_breaks_a_promise_is_told_in_the_exit_code(tmp_path):
    (tmp_path / "durable-monty.toml").write_text('[executors.here]\nplugin = "local"\nmode = "inline"\n')
    told = run(SCRIPT, "plugin", "test", "here", "-k", "submit_returns_before", cwd=tmp_path, code=1)
    assert "submit returned when a call of 2 s had ended; it must start it and return" in told


@pytest.mark.parametrize("name", ["My-Farm", "1farm", "farm/../x", ""])
def test_a_name_that_cannot_be_one_is_refused(tmp_path, name):
    run(SCRIPT, "plugin", "new", name, cwd=tmp_path, code=2)
    assert not list(tmp_path.iterdir())


def test_nothing_that_exists_is_written_over(scaffolded, tmp_path):
    before = (scaffolded / "README.md").read_text()
    run(SCRIPT, "plugin", "new", "my_farm", cwd=tmp_path, code=2)
    assert (scaffolded / "README.md").read_text() == before

"""Commands that installed distributions add to `durable-monty`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = str(Path(sys.executable).parent / "durable-monty")
GREET = "import click\n\n@click.command()\n@click.option('--name')\ndef greet(name):\n    print(f'hello {name}')\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command line beside an installed distribution that names these commands."""

    def run(commands, *arguments):
        metadata = tmp_path / "site" / "greetings-1.0.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: greetings\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[durable_monty.commands]\n{commands}\n")
        (tmp_path / "site" / "greetings.py").write_text(GREET)
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_command_of_an_installed_distribution_is_run(run):
    done = run("greet = greetings:greet", "greet", "--name", "ada")
    assert (done.returncode, done.stdout) == (0, "hello ada\n")


def test_help_names_it_without_importing_it(run, tmp_path):
    commands = "greet = greetings:greet\nbroken = nowhere:command"
    done = run(commands, "--help")
    assert done.returncode == 0
    assert "greet      Commands of greetings." in done.stdout
    assert "broken     Commands of greetings." in done.stdout
    assert not (tmp_path / "site" / "__pycache__").exists()


@pytest.mark.parametrize("target", ["nowhere:command", "greetings:GREET", "greetings:click"])
def test_a_broken_command_says_what_is_wrong_and_breaks_nothing_else(run, target):
    commands = f"broken = {target}"
    done = run(commands, "broken", "--any", "option")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: running 'broken': the command '{target}' of greetings did not load: ")
    assert "Traceback" not in done.stderr
    assert run(commands, "config", "check").returncode == 0


def test_a_built_in_command_is_never_replaced(run):
    commands = "list = greetings:greet"
    assert "hello" not in run(commands, "list").stdout
    assert run(commands, "--help").stdout.count("  list ") == 1

"""The third party's plug-in of the documentation, on a real OpenSSH server: installed from wheels, outside the workspace."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from support import environments

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "executor-ssh"
PUBLISHED = {
    "durable_monty": {"remote"},
    "durable_monty.hookspecs": {"hookimpl"},
    "durable_monty.models": {"Accepted", "Call", "Capabilities", "Failure", "Finding", "Job", "Outcome", "Refused"},
}


@pytest.mark.examples
@pytest.mark.timeout(900)
def test_the_ssh_executor_keeps_every_promise(tmp_path):
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project)
    python = environments.new_environment(tmp_path / "environment")
    environments.install(python, environments.build(ROOT / "core", tmp_path / "core"))
    environments.install(python, environments.build(project, tmp_path / "dist"))
    shutil.rmtree(project / "src")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    assert "skipped" not in done.stdout
    assert "xfailed" not in done.stdout


def test_the_ssh_executor_stands_on_published_names_only():
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    assert "durable-monty-core>=0.2,<0.3" in project["dependencies"]
    imports = re.findall(r"^from (durable_monty[\w.]*) import (.+)$", _source(), re.MULTILINE)
    used = {(module, name.strip()) for module, names in imports for name in names.split(",")}
    own = {item for item in used if not item[0].startswith("durable_monty_ssh")}
    assert own
    assert {(module, name) for module, name in own if name not in PUBLISHED.get(module, ())} == set()


def test_the_ssh_executor_is_small():
    assert sum(len(file.read_text().splitlines()) for file in EXAMPLE.glob("src/*/*.py")) < 300


def _source():
    return "\n".join(file.read_text() for file in sorted(EXAMPLE.glob("src/*/*.py")))

"""The pages for authors of executors are true and complete: what they show runs, what there is stands in them."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pluggy
import pytest

from durable_monty import errors, hookspecs, models, plugins
from durable_monty.hookspecs import ExecutorSpec
from support import environments

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "executors"
KIT = "\n".join(file.read_text() for file in (ROOT / "core/src/durable_monty/testing/executors").glob("*.py"))
ANSWERS = ("Called by", "Called again", "Return", "Raise", "Durable by then")


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tmp_path):
    """Runs a page's blocks in order: files are saved, commands run, what is shown must be there."""
    python = environments.new_environment(tmp_path / "environment", with_pip=True)
    for number, project in enumerate((ROOT / "core", ROOT / "plugins" / "local")):
        environments.install(python, environments.build(project, tmp_path / f"dist{number}"))
    folder = tmp_path / "empty"
    folder.mkdir()
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment = {**os.environ, **offline, "PATH": path, "COLUMNS": "200"}

    def run(command):
        done = subprocess.run(
            ["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-5000:]}{done.stderr[-5000:]}"
        return done.stdout + done.stderr

    def follow(name):
        ran = 0
        for before, language, block in re.findall(
            r"(?:^|\n)([^\n]*)\n+```(\w+)\n(.*?)```", (PAGES / name).read_text(), re.DOTALL
        ):
            saved = re.search(r"this as `([^`]+)`", before)
            if saved:
                (folder / saved.group(1)).write_text(block)
            elif language == "sh":
                run(block)
                ran += 1
            elif language == "console":
                for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
                    told = squeezed(run(command))
                    for line in shown.splitlines():
                        assert squeezed(line) in told, f"$ {command}\nshows {line!r}, and told:\n{told[-5000:]}"
                    ran += 1
            elif language != "mermaid":
                sources = [*folder.rglob("*.py"), *folder.rglob("*.toml"), *(ROOT / "docs/examples").rglob("*.py")]
                assert any(block in file.read_text() for file in sources), f"nothing holds this any more:\n{block}"
        return ran

    return follow


def squeezed(text):
    return " ".join(text.split())


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_it_stands_in_an_empty_directory(page):
    assert page("writing-an-executor.md") >= 12


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_the_suites_of_the_page_on_testing_pass(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / "testing-an-executor.md").read_text(), re.DOTALL)
    (tmp_path / "test_page.py").write_text("\n\n".join(blocks))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "3 xfailed" in done.stdout


def test_what_may_be_set_and_overridden_in_a_suite_is_documented():
    from durable_monty.testing.executors.base import Promises

    text = (PAGES / "testing-an-executor.md").read_text()
    names = [
        name for name in vars(Promises) if not name.startswith("_") and name not in ("executor", "kit", "other", "can")
    ]
    assert len(names) >= 8
    assert [name for name in names if f"`{name}" not in text] == []


@pytest.mark.parametrize(
    "name", ["executors/hooks.md", "executors/promises.md", "reference/errors.md", "reference/executors.md"]
)
def test_a_generated_page_is_up_to_date(name):
    """If not: `nox -s pages`."""
    assert (ROOT / "docs" / name).read_text() == generator().PAGES[name]().rstrip() + "\n"


@pytest.mark.parametrize("hook", hookspecs.HOOKS)
def test_every_hook_is_documented_in_full_and_has_promises(hook):
    text = inspect.getdoc(getattr(ExecutorSpec, hook))
    places = [text.find(f"\n{answer}: ") for answer in ANSWERS]
    assert -1 not in places, f"its docstring lacks {ANSWERS[places.index(-1)]!r}"
    assert places == sorted(places), "its docstring answers in another order"
    section = (PAGES / "hooks.md").read_text().partition(f"## `{hook}`")[2].partition("\n## ")[0]
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(ExecutorSpec)
    for argument in getattr(manager.hook, hook).spec.argnames:
        assert f"{argument}: " in section
    assert re.search(rf"\b(executor|loaded)\.{hook}\b|\.{hook}\(\)", KIT), f"the kit never calls {hook}"


def test_there_is_no_hook_that_the_list_of_hooks_lacks():
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(ExecutorSpec)
    assert {name for name in vars(manager.hook) if not name.startswith("_")} == set(hookspecs.HOOKS)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(models.Capabilities)])
def test_every_capability_is_documented_and_has_a_promise(field):
    assert f"* `{field}`: " in (PAGES / "hooks.md").read_text()
    assert re.search(rf"\b(can|declared|capabilities)\.{field}\b", KIT), f"no promise depends on {field}"


def test_every_error_is_documented():
    page = (ROOT / "docs/reference/errors.md").read_text()
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DurableMontyError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        assert f"| `{kind.__name__}` | " in page
        assert inspect.getdoc(kind) != inspect.getdoc(kind.__mro__[1]), f"{kind.__name__} has no docstring of its own"
        assert f" {kind.__name__} " in errors.__doc__ or kind.__name__ + "\n" in errors.__doc__, "the tree lacks it"


@pytest.mark.parametrize("plugin", sorted(plugins.available()))
def test_every_setting_of_every_installed_plug_in_is_documented(plugin):
    page = (ROOT / "docs/reference/executors.md").read_text()
    fields = plugins.plugin_class(plugin).Settings.model_fields
    assert fields
    for name, field in fields.items():
        assert field.description, f"{plugin}.{name} has no description"
        assert f"| `{name}` | " in page.partition(f"## `{plugin}`")[2].partition("\n## ")[0]

"""The documentation is true: its programs run, its links lead somewhere, and it names everything there is."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from durable_monty.cli import main
from durable_monty.config import Config, FunctionTable
from durable_monty.functions import FunctionOptions
from durable_monty.testing import WorkflowTest

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sys.executable).parent
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("core/*.md"), *ROOT.glob("plugins/*/*.md")})


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def run(*command, environment=None, check=0):
    done = subprocess.run(
        [SCRIPTS / command[0], *command[1:]],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == check, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_program_of_the_readme_runs(tmp_path):
    (source,) = blocks("README.md", "python")
    (tmp_path / "order.py").write_text(source)
    arguments = ("--input", 'customer="ada"', "--input", 'items=["tea", "cake"]', "--id", "order-1")
    assert run("durable-monty", "run", "order.py", *arguments) == '"ada paid 700 cents"\n'


def test_the_commands_of_the_readme_are_those_that_are_run():
    commands = [block.strip() for block in blocks("README.md", "sh")]
    assert (ROOT / ".ci" / "run").read_text().strip().endswith(commands[1])
    assert "docs/examples/census/census.py" in commands[0]


def test_the_tutorial_runs(tmp_path):
    order, script = blocks("docs/tutorial.md", "python")
    example = (ROOT / "docs/examples/order/order.py").read_text()
    assert order in example, "the tutorial shows the example that ships"
    (tmp_path / "order.py").write_text(order)
    (tmp_path / "script.py").write_text(script)
    arguments = ("--input", 'customer="ada"', "--input", 'items=["tea", "cake"]', "--id", "order-1")
    printed = run("durable-monty", "run", "order.py", *arguments)
    assert json.loads(printed) == {"items": 2, "receipt": "ada paid 700 cents"}
    assert printed in (ROOT / "docs/tutorial.md").read_text()
    assert "ada paid 300 cents" in run("python", "script.py")


def test_the_mistake_of_the_tutorial_is_found_as_it_says(tmp_path):
    order, _ = blocks("docs/tutorial.md", "python")
    (tmp_path / "order.py").write_text(order.replace("charge(customer, sum(prices))", "charge(customer)"))
    shown = next(block for block in blocks("docs/tutorial.md", "console") if "error:" in block)
    done = subprocess.run(
        [SCRIPTS / "durable-monty", "run", "order.py", "--input", 'customer="ada"', "--input", "items=[]"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines() == shown.splitlines()[1:]


def test_every_promise_names_a_test_that_there_is():
    page = (ROOT / "docs/reliability.md").read_text()
    promises = [line for line in page.partition("## What is not promised")[0].splitlines() if line.startswith("| ")]
    rows = [line for line in promises if not line.startswith(("| promise", "| what happens", "|---"))]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`([\w/-]+\.py)::(\w+)`", row)
        assert named, f"it names no test: {row}"
        for file, test in named:
            tests = ast.parse((ROOT / file).read_text()).body
            assert test in {item.name for item in tests if isinstance(item, ast.FunctionDef)}, f"{file} has no {test}"


HOW_TO = [path.name for path in sorted((ROOT / "docs/howto").glob("*.md")) if "import WorkflowTest" in path.read_text()]


@pytest.mark.parametrize("page", HOW_TO)
def test_the_blocks_of_a_how_to_run(page, tmp_path, monkeypatch):
    """They make one module, in their order; what its tests assert is what the page says."""
    source = "\n".join(blocks(f"docs/howto/{page}", "python"))
    name = f"how_to_{page.removesuffix('.md').replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(name)
    tests = [item for item_name, item in vars(module).items() if item_name.startswith("test_")]
    assert tests
    for test in tests:
        if not inspect.signature(test).parameters:
            test()
            continue
        with WorkflowTest() as workflow_test:
            test(workflow_test)


def keys(model, prefix=""):
    for name, field in model.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if inner is not None:
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_configuration_key_is_documented():
    page = (ROOT / "docs/reference/configuration.md").read_text()
    missing = [key for key in keys(Config) if f"`{key}" not in page]
    assert not missing


def test_every_command_and_option_is_documented():
    page = (ROOT / "docs/reference/command-line.md").read_text()

    def walk(command, path):
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                inner = command.get_command(click.Context(command), name)
                yield from walk(inner, f"{path} {name}".strip())
        else:
            yield path
            for parameter in command.params:
                yield from (option for option in parameter.opts if option.startswith("--"))

    missing = [item for item in walk(main, "") if item not in page]
    assert not missing


def test_the_program_of_how_calls_are_run_prints_what_it_says(tmp_path):
    page = "docs/howto/run-calls.md"
    (tmp_path / "calls.py").write_text("\n".join(blocks(page, "python")))
    assert run("python", "calls.py") == blocks(page, "text")[0]
    (configuration,) = blocks(page, "toml")
    (tmp_path / "durable-monty.toml").write_text(configuration)
    assert '"rate": "10/s"' in run("durable-monty", "config", "show", "--json")


def test_every_field_of_a_function_is_documented():
    page = (ROOT / "docs/reference/workflows.md").read_text()
    assert [
        name for name in (field.name for field in dataclasses.fields(FunctionOptions)) if f"`{name}`" not in page
    ] == []
    keys_of_table = (ROOT / "docs/reference/configuration.md").read_text()
    assert [name for name in FunctionTable.model_fields if f'`function."PATH".{name}' not in keys_of_table] == []

"""The command line: exit codes, what goes to stdout, and errors that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = str(Path(sys.executable).parent / "durable-monty")
ORDER = """
from durable_monty import function, workflow

RATE = 100

@function
def price(item: str) -> int:
    return RATE * len(item)

@function
def refuse(item: str) -> int:
    raise ValueError(f"no {item}")

@workflow
async def order(items: list[str], discount: int = 0) -> int:
    total = 0
    for item in items:
        total += await price(item)
    return total - discount

@workflow
async def failing(item: str) -> int:
    return await refuse(item)
"""


def run(*arguments, check=None, **options):
    """The real command; `check` is the exit code that is expected."""
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=100, check=False, **options)
    if check is not None:
        assert done.returncode == check, f"{arguments} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture
def shop(tmp_path):
    """A folder with a file of two workflows; it is the working directory."""
    (tmp_path / "shop.py").write_text(ORDER)
    return tmp_path


def test_run_prints_the_result_as_json_and_nothing_else(shop):
    done = run("run", "shop.py:order", "--input", 'items=["tea", "cake"]', "--input", "discount=1", check=0)
    assert json.loads(done.stdout) == 699


def test_run_with_an_id_again_prints_the_stored_result(shop):
    arguments = ("run", "shop.py:order", "--input", 'items=["tea"]', "--id", "a")
    assert run(*arguments, check=0).stdout == run(*arguments, check=0).stdout == "300\n"
    assert len(json.loads(run("list", "--json", check=0).stdout)) == 1


def test_an_id_of_another_start_is_an_error(shop):
    run("run", "shop.py:order", "--input", 'items=["tea"]', "--id", "a", check=0)
    done = run("run", "shop.py:order", "--input", 'items=["milk"]', "--id", "a", check=2)
    assert "inputs" in done.stderr
    assert done.stdout == ""


def test_a_failed_execution_exits_with_1_and_its_tracebacks_on_stderr(shop):
    done = run("run", "shop.py:failing", "--input", 'item="tea"', check=1)
    assert done.stdout == ""
    assert "return await refuse(item)" in done.stderr
    assert 'raise ValueError(f"no {item}")' in done.stderr
    assert "^^^^" in done.stderr


def test_several_workflows_in_a_file_have_to_be_named(shop):
    done = run("run", "shop.py", check=2)
    assert "order" in done.stderr
    assert "failing" in done.stderr


def test_plain_source_runs_with_the_functions_that_are_named(shop):
    (shop / "host.py").write_text("def double(n):\n    return 2 * n\n")
    (shop / "plain.py").write_text("x = await double(n)\nawait double(x)\n")
    arguments = ("run", "plain.py", "--function", "host:double", "--input", "n=5")
    assert run(*arguments, check=0).stdout == "20\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "none.py"), "none.py"),
        (("run", "shop.py:nothing"), "nothing"),
        (("run", "shop.py:order", "--input", "items=tea"), "is not JSON"),
        (("run", "shop.py:order", "--input", "items"), "KEY=JSON"),
        (("run", "shop.py:order"), "items"),
        (("run", "shop.py:order", "--input", "items=[]", "--input", "colour=1"), "colour"),
        (("run", "shop.py:order", "--input", 'items=["a"]', "--config", "none.toml"), "no such file"),
        (("start", "shop.py:order", "--input", "items=[]", "--id", "a b"), "letters"),
        (("show", "nobody"), "durable-monty list"),
        (("result", "nobody"), "durable-monty list"),
        (("cancel", "nobody"), "durable-monty list"),
        (("worker", "--executor", "nobody"), "nobody"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_to_do(shop, arguments, words):
    done = run(*arguments, check=2)
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    listed = run("list", "--json", check=0)
    assert json.loads(listed.stdout) == [], "nothing was started"


@pytest.mark.parametrize(
    ("text", "words"),
    [("[store", "not valid TOML"), ("[stor]\n", "did you mean 'store'"), ('executor = "nobody"', "nobody")],
)
def test_a_configuration_that_cannot_be_used_exits_with_2(shop, text, words):
    (shop / "durable-monty.toml").write_text(text)
    for command in (("list",), ("config", "check"), ("config", "show")):
        assert words in run(*command, check=2).stderr


def test_a_workflow_that_cannot_work_is_not_started(shop):
    (shop / "wrong.py").write_text(ORDER.replace("await price(item)", "await price(item, 3)"))
    done = run("run", "wrong.py:order", "--input", 'items=["tea"]', check=2)
    assert "18:" in done.stderr
    assert "total += await price(item, 3)" in done.stderr


def test_start_and_worker_and_the_listings(shop):
    execution_id = run("start", "shop.py:order", "--input", 'items=["tea"]', check=0).stdout.strip()
    assert "scheduled" in run("result", execution_id, check=1).stderr
    run("worker", "--until-complete", check=0)
    assert run("result", execution_id, check=0).stdout == "300\n"
    (listed,) = json.loads(run("list", "--json", "--status", "completed", check=0).stdout)
    assert listed["execution_id"] == execution_id
    shown = json.loads(run("show", execution_id, "--json", check=0).stdout)
    (call,) = shown["calls"]
    assert (call["function"], call["arguments"], call["status"]) == ("shop.price", [["tea"], {}], "completed")
    assert "completed" in run("cancel", execution_id, check=1).stderr


def test_show_marks_the_line_that_an_execution_waits_at(shop):
    (shop / "slow.py").write_text("import asyncio\n\nx = 1\nawait asyncio.sleep(100)\nx\n")
    process = subprocess.Popen([SCRIPT, "run", "slow.py", "--id", "s"], stderr=subprocess.DEVNULL)
    ends_at = time.monotonic() + 30
    while '"waiting"' not in run("list", "--json").stdout and time.monotonic() < ends_at:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 1, "it has not ended"
    shown = run("show", "s", check=0).stdout
    assert [line for line in shown.splitlines() if line.startswith(">")] == [">    4  await asyncio.sleep(100)"]
    run("cancel", "s", "--reason", "enough", check=0)
    run("worker", "--until-complete", check=0)
    assert json.loads(run("show", "s", "--json", check=0).stdout)["status"] == "cancelled"


def test_sigterm_ends_a_worker_in_order_and_its_call_is_not_counted_as_an_attempt(shop):
    (shop / "host.py").write_text("import time\n\ndef hang(path):\n    open(path, 'a').close()\n    time.sleep(60)\n")
    (shop / "plain.py").write_text("await hang(path)\n")
    (shop / "durable-monty.toml").write_text("[worker]\nstop_grace_seconds = 0.1\n[functions]\nallow = ['host.*']\n")
    begun = shop / "begun"
    run("start", "plain.py", "--function", "host:hang", "--input", f'path="{begun}"', "--id", "h", check=0)
    process = subprocess.Popen([SCRIPT, "worker"])
    ends_at = time.monotonic() + 30
    while not begun.exists() and time.monotonic() < ends_at:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    (call,) = json.loads(run("show", "h", "--json", check=0).stdout)["calls"]
    assert (call["status"], call["attempts"]) == ("pending", 1)


def test_executors_and_configuration_and_database(shop):
    (shop / "durable-monty.toml").write_text(
        '[executors.big]\nplugin = "local"\nmode = "process"\n[security]\nsigning_key = "0123456789abcdef"\n'
    )
    names = {item["name"] for item in json.loads(run("executors", "list", "--json", check=0).stdout)}
    assert {"local", "big"} <= names
    assert "processes" in run("executors", "check", "big", check=0).stdout
    assert "pip install durable-monty-nobody" in run("executors", "check", "nobody", check=2).stdout
    shown = run("config", "show", check=0).stdout
    assert "0123456789abcdef" not in shown
    assert 'mode = "process"' in shown
    run("config", "check", check=0)
    schema = json.loads(run("config", "schema", check=0).stdout)
    assert "lease_seconds" in json.dumps(schema)
    assert "mode" in schema["properties"]["executors"]["properties"]["local"]["properties"]
    assert json.loads(run("db", "current", "--json", check=0).stdout)["current"] is None
    run("db", "upgrade", check=0)
    assert json.loads(run("db", "current", "--json", check=0).stdout)["current"] == "0002"


def test_the_environment_beats_the_file(shop):
    environment = {**os.environ, "DURABLE_MONTY_STORE__URL": "sqlite:///other.db"}
    run("run", "shop.py:order", "--input", "items=[]", check=0, env=environment)
    assert (shop / "other.db").exists()
    assert not (shop / "durable-monty.db").exists()

"""The whole examples: years of them in virtual time, and each killed and finished by the commands of its README."""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from durable_monty import Failure
from durable_monty.testing import WorkflowTest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
SCRIPT = str(Path(sys.executable).parent / "durable-monty")
DAY = 86_400
NAMES = ("saga", "approval", "polling", "subscription", "batch", "agent", "etl", "nightly")


@pytest.fixture
def load(monkeypatch):
    """Imports the module of an example."""
    loaded = []

    def load(folder, module):
        monkeypatch.syspath_prepend(str(EXAMPLES / folder))
        loaded.append(module)
        # Other tests have modules of the same name.
        sys.modules.pop(module, None)
        return importlib.import_module(module)

    yield load
    for module in loaded:
        sys.modules.pop(module, None)


@pytest.fixture
def t():
    with WorkflowTest() as test:
        yield test


def test_an_order_that_cannot_be_shipped_is_undone_in_reverse(load, t):
    shop = load("saga", "shop")
    t.fail(shop.refund, nth=1, error=ConnectionError("down"), times=2)
    inputs = {"customer": "ada", "item": "lamp", "cents": 42, "country": "nowhere"}
    assert t.run(shop.order, inputs)["state"] == "undone"
    done = [made.function for made in t.calls if made.status == "completed"]
    assert done == ["reserve", "charge", "refund", "release"]
    assert t.published("state") == "undoing"


def test_an_order_is_done_where_nothing_fails(load, t):
    shop = load("saga", "shop")
    inputs = {"customer": "ada", "item": "lamp", "cents": 42, "country": "France"}
    assert t.run(shop.order, inputs) == {"state": "done", "parcel": "parcel to France"}
    assert [made.function for made in t.calls] == ["reserve", "charge", "ship"]


EXPENSE = {"who": "ada", "what": "a chair", "cents": 30_000}


def test_an_expense_is_reminded_of_and_goes_to_the_boss(load, t):
    expense = load("approval", "expense")
    t.signal("decision", {"by": "grace", "approved": True}, after_seconds=4.1 * DAY)
    assert t.run(expense.expense, EXPENSE) == "approved by grace"
    asked = [(made.args[0], round((made.at - t.calls[0].at).total_seconds() / DAY)) for made in t.calls]
    assert asked == [("manager", 0), ("manager", 1), ("manager", 2), ("boss", 3), ("boss", 4), ("ada", 4)]


@pytest.mark.parametrize(("cents", "answer"), [(100, "approved without a question"), (30_000, "nobody decided")])
def test_an_expense_that_nobody_decides(load, t, cents, answer):
    expense = load("approval", "expense")
    assert t.run(expense.expense, {**EXPENSE, "cents": cents}) == answer


def test_an_export_is_looked_at_less_and_less_often(load, t):
    export = load("polling", "export")
    assert t.run(export.export, {"table": "orders"})["looks"] == 5
    assert t.clock.elapsed_seconds == 10 + 20 + 40 + 80


def test_an_export_that_is_never_done_is_given_up(load, t):
    export = load("polling", "export")
    t.replace(export.look_at_export, lambda job: {"done": False, "looks": 1})
    assert t.run(export.export, {"table": "orders"})["done"] is False
    assert t.clock.elapsed_seconds == 7 * DAY


def test_two_years_of_a_subscription(load, t):
    subscription = load("subscription", "subscription")
    t.signal("price", 700, after_seconds=365 * DAY)
    t.signal("cancel", after_seconds=730 * DAY)
    ended = t.run(subscription.subscription, {"customer": "ada", "cents": 500})
    cents = [item["cents"] for item in t.stream("receipts")]
    assert cents == [500] * 13 + [700] * 13
    assert ended == {"periods": 26, "cents": 700}


def test_a_batch_keeps_its_window_and_counts_what_failed(load, t):
    batch = load("batch", "batch")
    t.takes(batch.convert, 60)
    ended = t.run(batch.batch, {"count": 20, "window": 5}, execution_id="b")
    assert ended == {"done": 18, "failed": [7, 17]}
    begun = Counter((made.at - t.calls[0].at).total_seconds() for made in t.calls_of(batch.convert))
    assert max(begun.values()) == 5
    assert t.published("progress") == {"done": 18, "failed": 2, "of": 20}


def test_an_agent_uses_the_tools_that_the_model_chooses(load, t):
    agent = load("agent", "agent")
    t.answer("answer", "no")
    t.fail(agent.search, error=TimeoutError("slow"))
    assert t.run(agent.agent, {"task": "the price of a bolt and a nut"}) == "17 cents, no"
    assert [step["tool"] for step in t.stream("steps")] == ["search", "search", "search", "add", "ask"]


def test_an_etl_reads_four_files_at_a_time_and_names_the_broken_one(load, t):
    etl = load("etl", "etl")
    t.takes(etl.extract, 60)
    t.fail(etl.extract, nth=2, error=OSError("away"))
    ended = t.run(etl.etl, {"files": 8, "rows": 3})
    assert ended == {"rows": 21, "failed": [str(Path("sources", "007.csv"))]}
    begun = Counter(made.at for made in t.calls_of(etl.extract))
    assert max(begun.values()) <= 4


def test_the_nightly_report_is_of_the_day_before(load, t):
    nightly = load("nightly", "nightly")
    t.service.create_schedule("nightly", nightly.nightly, cron="30 2 * * *", timezone="Europe/Berlin", time_input="at")
    t.fail(nightly.collect, nth=2, error=Failure("lost", "Lost", "gone"))
    t.clock.advance(days=3)
    assert sorted(path.stem for path in Path("reports").iterdir()) == ["2029-12-31", "2030-01-01", "2030-01-02"]


# As a user would: the commands of the READMEs, with SIGKILL in between


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


def command(name, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES / name)}
    done = subprocess.run(
        [SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == options.get("code", 0), done.stdout + done.stderr
    return done.stdout


def killed(name, moment, *arguments):
    """Run a command and send SIGKILL when the moment has come, which must be before its end."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES / name)}
    process = subprocess.Popen(
        [SCRIPT, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ends_at = time.monotonic() + 60
    while not moment():
        assert process.poll() is None, "it ended before the moment came"
        assert time.monotonic() < ends_at, "the moment never came"
        time.sleep(0.01)
    process.kill()
    process.wait()


def lines(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def published(name, execution_id, key):
    done = subprocess.run([SCRIPT, "published", execution_id, key], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.mark.examples
def test_the_order_is_killed_while_it_undoes(folder):
    inputs = ('customer="ada"', 'item="lamp"', "cents=4200", 'country="nowhere"')
    arguments = [
        "docs/examples/saga/shop.py",
        "--id",
        "order-1",
        *[part for item in inputs for part in ("--input", item)],
    ]
    killed("saga", lambda: len(lines("order-ledger.txt")) >= 2, "run", *arguments)
    assert json.loads(command("saga", "run", *arguments))["state"] == "undone"
    assert [line.split()[1] for line in lines("order-ledger.txt")] == ["reserve", "charge", "refund", "release"]


@pytest.mark.examples
def test_the_approval_is_killed_while_it_waits(folder):
    inputs = ('who="ada"', 'what="a chair"', "cents=30000")
    arguments = [
        "docs/examples/approval/expense.py",
        "--id",
        "e",
        *[part for item in inputs for part in ("--input", item)],
    ]
    command("approval", "start", *arguments)
    killed("approval", lambda: lines("outbox.txt"), "worker")
    command("approval", "signal", "e", "decision", '{"by": "grace", "approved": true}')
    command("approval", "worker", "--until-complete")
    assert json.loads(command("approval", "result", "e")) == "approved by grace"
    assert lines("outbox.txt")[-1] == "ada: a chair was approved by grace"


@pytest.mark.examples
def test_the_export_is_killed_between_two_looks(folder):
    arguments = ["docs/examples/polling/export.py", "--id", "x", "--input", 'table="orders"']
    arguments += ["--input", "first_pause_seconds=0.5"]
    killed("polling", lambda: len(lines("export-x-0.txt")) >= 2, "run", *arguments)
    ended = json.loads(command("polling", "run", *arguments))
    assert ended["done"]
    assert len(list(Path().glob("export-*.txt"))) == 1
    assert ended["looks"] == len(lines("export-x-0.txt"))


@pytest.mark.examples
def test_the_subscription_is_killed_between_two_charges(folder):
    arguments = ["docs/examples/subscription/subscription.py", "--id", "s", "--input", 'customer="ada"']
    arguments += ["--input", "cents=500", "--input", "period_seconds=0.5"]
    command("subscription", "start", *arguments)
    killed("subscription", lambda: (published("subscription", "s", "state") or {}).get("periods", 0) >= 2, "worker")
    command("subscription", "signal", "s", "price", "700")
    command("subscription", "signal", "s", "cancel")
    command("subscription", "worker", "--until-complete")
    ended = json.loads(command("subscription", "result", "s"))
    receipts = [json.loads(line) for line in command("subscription", "stream", "s", "receipts").splitlines()]
    assert ended["periods"] == len(receipts) >= 2
    assert len({item["receipt"] for item in receipts}) == len(receipts)


@pytest.mark.examples
def test_the_batch_is_killed_in_the_middle(folder):
    arguments = ["docs/examples/batch/batch.py:batch", "--id", "b", "--input", "count=50", "--input", "window=5"]
    killed("batch", lambda: len(lines("batch-done.txt")) >= 10, "run", *arguments)
    assert json.loads(command("batch", "run", *arguments)) == {"done": 45, "failed": [7, 17, 27, 37, 47]}
    stored = Counter(line.split()[0] for line in lines("batch-done.txt"))
    assert len(stored) == 45
    assert stored.total() <= 45 + 5
    assert len(json.loads(command("batch", "list", "--status", "failed", "--json"))) == 5


@pytest.mark.examples
def test_the_agent_is_killed_while_it_waits_for_a_person(folder):
    arguments = ["docs/examples/agent/agent.py", "--id", "a", "--input", 'task="the price of a bolt and a nut"']
    command("agent", "start", *arguments)
    asked = lambda: subprocess.run([SCRIPT, "stream", "a", "questions"], capture_output=True, check=True).stdout  # noqa: E731
    killed("agent", asked, "worker")
    command("agent", "signal", "a", "answer", '"yes"')
    command("agent", "worker", "--until-complete")
    assert json.loads(command("agent", "result", "a")) == "17 cents, yes"
    steps = [json.loads(line)["tool"] for line in command("agent", "stream", "a", "steps").splitlines()]
    assert steps == ["search", "search", "add", "ask"]


@pytest.mark.examples
def test_the_etl_is_killed_while_it_loads(folder):
    arguments = ["docs/examples/etl/etl.py", "--id", "e", "--input", "files=20"]
    killed("etl", lambda: Path("sales.db").exists(), "run", *arguments)
    ended = json.loads(command("etl", "run", *arguments))
    assert ended == {"rows": 1900, "failed": [str(Path("sources", "019.csv"))]}
    connection = sqlite3.connect("sales.db")
    assert connection.execute("SELECT count(*), count(DISTINCT source) FROM sales").fetchone() == (1900, 19)
    connection.close()


@pytest.mark.examples
def test_the_nightly_schedule_makes_up_for_a_week_and_is_killed_meanwhile(folder):
    create = ["schedule", "create", "nightly", "docs/examples/nightly/nightly.py", "--cron", "30 2 * * *"]
    command("nightly", *create, "--timezone", "Europe/Berlin", "--time-input", "at")
    week = ("2026-01-01T00:00:00+01:00", "2026-01-08T00:00:00+01:00")
    assert len(command("nightly", "schedule", "backfill", "nightly", *week).split()) == 7
    killed("nightly", lambda: Path("reports").exists(), "worker")
    command("nightly", "worker", "--until-complete")
    assert sorted(path.stem for path in Path("reports").iterdir())[0] == "2025-12-31"
    assert len(list(Path("reports").iterdir())) == 7


@pytest.mark.parametrize("name", NAMES)
def test_each_readme_says_how_to_run_it(name):
    text = (EXAMPLES / name / "README.md").read_text()
    (path,) = {path.name for path in (EXAMPLES / name).glob("*.py")}
    assert f"docs/examples/{name}/{path}" in text
    assert "ill " in text

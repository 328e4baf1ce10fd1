"""The twenty control-flow patterns: what each begins, when, and what becomes of it."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from durable_monty import ExecutionFailed
from durable_monty.testing import WorkflowTest
from durable_monty.workflows import Workflow

FOLDER = Path(__file__).parent.parent / "docs" / "examples" / "patterns"
HOUR = 3600


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["in one go", "restarted at every step"]
)
def pattern(request, monkeypatch):
    """Runs a pattern in virtual time; `at` gives each activity with the hour at which it began."""
    monkeypatch.syspath_prepend(str(FOLDER))

    class Pattern:
        def __init__(self, t):
            self.t = t

        def begin(self, path, inputs=None):
            """Start it; each activity takes an hour."""
            module_name, name = path.split(".")
            module = importlib.import_module(module_name)
            self.t.takes(module.step, HOUR)
            self.t.start(getattr(module, name), inputs, execution_id="p")

        def run(self, path, inputs=None):
            self.begin(path, inputs)
            return self.t.finish()

        @property
        def at(self):
            start = min(made.at for made in self.t.calls)
            return [(made.args[0], (made.at - start).total_seconds() / HOUR) for made in self.t.calls]

    with WorkflowTest(restarts=request.param) as t:
        yield Pattern(t)


def test_sequence(pattern):
    assert pattern.run("basic.sequence") == ["order", "pack", "send"]
    assert pattern.at == [("order", 0), ("pack", 1), ("send", 2)]


def test_parallel_split(pattern):
    assert pattern.run("basic.parallel_split") == ["pack", "book"]
    assert pattern.at == [("pack", 0), ("bill", 0), ("book", 1)]


def test_synchronization(pattern):
    pattern.run("basic.synchronization")
    assert pattern.at == [("pack", 0), ("bill", 0), ("send", 1)]


@pytest.mark.parametrize(("cents", "chosen"), [(100, "approve"), (200_000, "ask the manager")])
def test_exclusive_choice(pattern, cents, chosen):
    assert pattern.run("basic.exclusive_choice", {"cents": cents}) == chosen
    assert pattern.at == [(chosen, 0)]


@pytest.mark.parametrize(("by_post", "first"), [(True, "print the letter"), (False, "write the mail")])
def test_simple_merge(pattern, by_post, first):
    pattern.run("basic.simple_merge", {"by_post": by_post})
    assert pattern.at == [(first, 0), ("archive", 1)]


@pytest.mark.parametrize(
    ("fire", "injured", "chosen"),
    [
        (False, False, ["police"]),
        (True, False, ["police", "fire brigade"]),
        (True, True, ["police", "fire brigade", "ambulance"]),
    ],
)
def test_multi_choice(pattern, fire, injured, chosen):
    assert pattern.run("branching.multi_choice", {"has_fire": fire, "has_injured": injured}) == chosen
    assert pattern.at == [(name, 0) for name in chosen]


@pytest.mark.parametrize(
    ("fire", "injured", "begun"),
    [
        (False, False, [("report", 0)]),
        (True, False, [("fire brigade", 0), ("report", 1)]),
        (True, True, [("fire brigade", 0), ("ambulance", 0), ("report", 1)]),
    ],
)
def test_synchronizing_merge(pattern, fire, injured, begun):
    pattern.run("branching.synchronizing_merge", {"has_fire": fire, "has_injured": injured})
    assert pattern.at == begun


def test_multi_merge(pattern):
    """The branches have the same length here; each is checked without regard to the other."""
    pattern.run("branching.multi_merge")
    assert pattern.at == [("audit", 0), ("process", 0), ("check audit", 1), ("check process", 1)]


def test_discriminator(pattern):
    """What comes next is done once, though three branches end."""
    assert pattern.run("branching.discriminator") == "first server"
    assert [name for name, hour in pattern.at if hour == 0] == ["first server", "second server", "third server"]
    assert [item for item in pattern.at if item[1]] == [("use first server", 1)]
    assert {made.status for made in pattern.t.calls} == {"completed"}


def test_arbitrary_cycles(pattern):
    answers = iter(["polish", "rewrite", "accept"])
    pattern.t.replace("review", lambda version: next(answers))
    assert pattern.run("structure.arbitrary_cycles") == 2
    steps = [made.args[0] for made in pattern.t.calls_of("step")]
    assert steps == ["write", "polish", "polish", "write", "polish", "print"]


def test_implicit_termination(pattern):
    pattern.run("structure.implicit_termination")
    assert pattern.at == [("a1", 0), ("b1", 0), ("c1", 0), ("b2", 1), ("c2", 1), ("c3", 2)]


def test_instances_without_synchronization(pattern):
    assert pattern.run("instances.instances_without_synchronization", {"count": 3}) == "all are on their way"
    assert sorted(pattern.at) == [("all are on their way", 0), *[(f"parcel {number}", 0) for number in range(3)]]
    pattern.t.clock.advance(hours=1)
    assert len(pattern.t.service.list_executions("completed")) == 4


def test_instances_known_at_design_time(pattern):
    pattern.run("instances.instances_known_at_design_time")
    assert pattern.at == [(f"signature {number}", 0) for number in (1, 2, 3)] + [("countersign", 1)]


def test_instances_known_at_run_time(pattern):
    pattern.run("instances.instances_known_at_run_time", {"items": ["a", "b", "c", "d", "e"]})
    assert pattern.at == [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 2), ("done", 3)]


def test_instances_not_known_in_advance(pattern):
    pattern.t.signal("witness", "ada")
    pattern.t.signal("witness", "bob", after_seconds=0.5 * HOUR)
    pattern.t.signal("witness", None, after_seconds=3 * HOUR)
    assert pattern.run("instances.instances_not_known_in_advance") == ["hear ada", "hear bob"]
    assert pattern.at == [("hear ada", 0), ("hear bob", 0.5), ("close the file", 3)]


@pytest.mark.parametrize(("answered_after_days", "chosen"), [(2, "continue"), (8, "write a reminder")])
def test_deferred_choice(pattern, answered_after_days, chosen):
    pattern.t.signal("customer answers", after_seconds=answered_after_days * 86_400)
    assert pattern.run("state.deferred_choice") == chosen
    assert [made.args[0] for made in pattern.t.calls] == [chosen]


@pytest.mark.parametrize("order", [["x-ray", "blood test"], ["blood test", "x-ray"]])
def test_interleaved_parallel_routing(pattern, order):
    """Both are asked for at once; the second begins when the first has ended."""
    for name in [order[0], order[0], order[1]]:
        pattern.t.signal("next", name)
    assert pattern.run("state.interleaved_parallel_routing") == order
    assert pattern.at == [(order[0], 0), (order[1], 1)]


def test_milestone(pattern):
    """One change is made in time, one is being made when the milestone is passed, one comes after it."""
    pattern.t.signal("change", "the colour", after_seconds=0.5 * HOUR)
    pattern.t.signal("change", "the size", after_seconds=1.75 * HOUR)
    pattern.t.signal("change", "the name", after_seconds=2.5 * HOUR)
    pattern.begin("state.milestone")
    pattern.t.takes("step", lambda name: 2 * HOUR if name == "pack" else HOUR)
    assert pattern.t.finish() == 1
    assert pattern.at == [("pack", 0), ("change the colour", 0.5), ("change the size", 1.75), ("send", 2)]
    assert [made.status for made in pattern.t.calls] == ["completed", "completed", "cancelled", "completed"]


def test_cancel_activity(pattern):
    pattern.t.signal("give up", after_seconds=0.5 * HOUR)
    assert pattern.run("cancellation.cancel_activity") == "apologize"
    assert pattern.at == [("search", 0), ("apologize", 0.5)]
    assert [made.status for made in pattern.t.calls] == ["cancelled", "completed"]


def test_cancel_activity_that_is_not_cancelled(pattern):
    assert pattern.run("cancellation.cancel_activity") == "report"
    assert pattern.at == [("search", 0), ("report", 1)]


def test_cancel_case(pattern):
    pattern.t.after(1.5 * HOUR, lambda: pattern.t.service.cancel("p", deadline_seconds=2 * HOUR))
    with pytest.raises(ExecutionFailed, match="was cancelled"):
        pattern.run("cancellation.cancel_case")
    assert pattern.at == [("reserve", 0), ("build", 1), ("release", 1.5)]
    assert [made.status for made in pattern.t.calls] == ["completed", "cancelled", "completed"]
    assert pattern.t.status == "cancelled"


def test_the_table_names_every_pattern_and_each_has_a_test(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    table = dict(re.findall(r"^\| (\d+) \|.*\[`(\w+)`\]", (FOLDER / "README.md").read_text(), re.MULTILINE))
    assert list(table) == [str(number) for number in range(1, 21)]
    found = {}
    for path in FOLDER.glob("*.py"):
        for item in vars(importlib.import_module(path.stem)).values():
            if isinstance(item, Workflow) and (number := re.match(r"(\d+): ", inspect.getdoc(item) or "")):
                found[number[1]] = item.name
    assert found == table
    assert {f"test_{name}" for name in table.values()} <= set(globals())

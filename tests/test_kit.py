"""The conformance kit tells the truth: each promise is kept by the reference, and broken by an executor of its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import durable_monty.testing.executors as kit
from kit.broken import BROKEN
from kit.hurried import ReferenceSuite
from kit.reference import Reference, Volatile
from kit.runner import PROMISES, complaint

FOLDER = Path(kit.__file__).parent
EVERY_BROKEN = [(promise, suite) for promise in sorted(BROKEN) for suite in BROKEN[promise]]

IN_OTHER_PROCESSES = {
    "test_a_call_whose_submitter_was_killed_before_the_answer_can_be_submitted_again",
    "test_the_outcome_of_a_job_of_a_killed_worker_reaches_the_next_one",
    "test_importing_it_is_light",
}
"""They take a second each, and the faults of the others are of no concern to them."""


def suite_of(kind):
    return type("Suite", (ReferenceSuite,), {"kind": kind})


def names(value):
    return getattr(value, "kind", value).__name__ if isinstance(value, type) else value


@pytest.mark.parametrize("kind", [Reference, Volatile])
def test_an_executor_that_does_everything_right_keeps_every_promise(kind):
    suite = suite_of(kind)
    assert {promise: found for promise in PROMISES if (found := complaint(suite, promise))} == {}


def test_every_promise_has_an_executor_that_breaks_it():
    assert set(PROMISES) == set(BROKEN)
    assert len(PROMISES) >= 40


@pytest.mark.parametrize(("promise", "suite"), EVERY_BROKEN, ids=names)
def test_a_broken_executor_is_found_out_in_a_sentence(promise, suite):
    found = complaint(suite, promise)
    assert found is not None, f"nothing is said about {suite.kind.__name__}"
    sentence = found.splitlines()[0]
    assert len(sentence.split()) >= 5, sentence
    assert not sentence.startswith("assert"), sentence


@pytest.mark.thorough
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("promise", "suite"), EVERY_BROKEN, ids=names)
def test_a_broken_executor_breaks_no_other_promise(promise, suite):
    others = [name for name in PROMISES if name != promise and name not in IN_OTHER_PROCESSES]
    assert {name: found for name in others if (found := complaint(suite, name))} == {}


def test_every_assertion_of_the_kit_says_what_is_wrong():
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Assert) and not _narrows_a_type(node):
                assert node.msg is not None, f"{file.name}:{node.lineno} has no message"


def _narrows_a_type(node):
    """`assert x is not None` for the type checker, after what it depends on was asserted."""
    return isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.IsNot)


WEAKER = """
import pytest
from durable_monty.testing import ExecutorSuite
from durable_monty_local import Executor, LocalSettings


class TestWeaker(ExecutorSuite):
    @pytest.fixture
    def executor(self):
        return Executor(LocalSettings())

    def test_stats_are_numbers_by_name(self):
        pass

    @pytest.mark.xfail(reason="said")
    def test_importing_it_is_light(self):
        assert False

    @pytest.mark.skip(reason="a skip is no reason")
    def test_an_empty_batch_is_answered_with_nothing(self):
        pass


class TestNothing(ExecutorSuite):
    pass
"""


def test_a_suite_that_is_weaker_or_empty_fails_and_says_so(tmp_path):
    """As its author sees it: run by pytest, with the values that were compared."""
    (tmp_path / "test_weaker.py").write_text(WEAKER)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "no_promise_is", "test_weaker.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    quiet = "test_an_empty_batch_is_answered_with_nothing, test_stats_are_numbers_by_name"
    assert f"TestWeaker overrides promises without a reason: {quiet}; mark each" in done.stdout
    assert "assert not ['test_an_empty_batch" in done.stdout, "the modules of the kit are not rewritten"
    assert "TestNothing has no fixture `executor`: define one that returns the executor to test" in done.stdout


def test_the_promise_that_watches_over_the_others_cannot_be_overridden():
    guard = "test_no_promise_is_overridden_without_a_reason"
    with pytest.raises(TypeError, match=guard):
        type("Suite", (ReferenceSuite,), {guard: lambda self: None})


def test_the_names_of_the_kit_are_loaded_when_they_are_used():
    """The functions in `durable_monty.testing.functions` run where there is no pytest."""
    code = "import sys, durable_monty.testing.functions; print('pytest' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]

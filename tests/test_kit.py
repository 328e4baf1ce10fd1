"""The conformance kit tells the truth: each promise is kept by the reference, and broken by an executor of its own."""

from __future__ import annotations

import ast
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


@pytest.mark.slow
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

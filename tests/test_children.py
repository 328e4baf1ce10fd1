"""Child executions: results, failures, cancellation with the parent, and who knows which workflow."""

from __future__ import annotations

import threading

import pytest

from durable_monty import ExecutionFailed, Worker
from support import children


@pytest.fixture
def working(service):
    """A worker in a thread, for as long as the test runs."""
    worker = Worker(service)
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield service
    worker.stop()
    thread.join()


def run(service, workflow, inputs=None, **options):
    execution_id = service.start_execution(workflow, inputs=inputs, **options)
    service.wait(execution_id, 60)
    return service.get_result(execution_id)


def test_a_parent_gets_the_results_of_its_children(working):
    assert run(working, children.family, {"values": [1, 2, 3]}) == [2, 4, 6]


def test_a_child_is_an_execution_of_its_own(working):
    run(working, children.family, {"values": [5]}, execution_id="parent")
    assert working.get_result("parent-0") == 10


def test_the_failure_of_a_child_is_caught_by_its_type(working):
    assert run(working, children.catching_parent, {"text": "no"}) == "caught no"


def test_an_uncaught_failure_of_a_child_fails_the_parent_with_both_tracebacks(working):
    with pytest.raises(ExecutionFailed) as raised:
        run(working, children.failing_parent, {"text": "deep"})
    text = str(raised.value)
    assert text.count("ValueError: deep") >= 2
    assert "failing_child" in text
    assert "in fail" in text


def test_a_child_that_is_left_ends_with_its_parent_or_goes_on(working):
    assert working.start_execution(children.leaving, inputs={"parent_close": "cancel"}, execution_id="p")
    while not working.list_executions("waiting"):
        pass
    working.signal("p", "go")
    assert working.wait("p", 30)["output"] == "left"
    assert working.wait("left", 30)["status"] == "cancelled"
    assert working.published("left", "state") == "cleaned up"


def test_a_child_that_is_abandoned_goes_on(working):
    assert working.start_execution(children.leaving, inputs={"parent_close": "abandon"}, execution_id="p")
    working.signal("p", "go")
    assert working.wait("p", 30)["output"] == "left"
    working.cancel("left", deadline_seconds=30)
    assert working.wait("left", 30)["status"] == "cancelled"


def test_cancelling_the_parent_cancels_the_child_that_it_waits_for(working):
    working.start_execution(children.waiting_parent, execution_id="p")
    while {row["execution_id"] for row in working.list_executions("waiting")} != {"p", "inner"}:
        pass
    working.cancel("p")
    assert working.wait("p", 30)["status"] == "cancelled"
    assert working.wait("inner", 30)["status"] == "cancelled"


def test_a_child_that_lost_a_race_is_cancelled(working):
    assert run(working, children.impatient) == 0
    assert working.wait("slow", 30)["status"] == "cancelled"


def test_a_child_that_is_cancelled_by_itself_is_an_ordinary_failure_of_its_parent(working):
    working.start_execution(children.waiting_parent, execution_id="p")
    while "inner" not in {row["execution_id"] for row in working.list_executions()}:
        pass
    working.cancel("inner", "not wanted")
    working.wait("p", 30)
    with pytest.raises(ExecutionFailed, match="RuntimeError: child 'inner' was cancelled: not wanted"):
        working.get_result("p")


def test_a_workflow_starts_itself_by_its_name(working):
    assert run(working, children.countdown, {"n": 3}) == [3, 2, 1, 0]


def test_a_workflow_of_text_gets_the_workflows_that_it_is_given(working):
    code = "from durable_monty.flow import child\n[await child(doubled, inputs={'value': 4}), await child('doubled', {'value': 1, 'extra': 5})]"
    assert run(working, code, workflows=[children.doubled]) == [8, 7]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("child('nobody')", "knows no such workflow, it knows: doubled"),
        ("child('doubled')", "'value' is missing"),
        ("child('doubled', {'value': 1, 'other': 2})", "it takes no 'other'"),
        ("child('doubled', {'value': 1}, execution_id='taken')", "there is an execution 'taken' already"),
        ("start_child('doubled', {'value': 1}, parent_close='maybe')", "parent_close is 'maybe'"),
        ("child(3)", "workflow is 3"),
        ("child('doubled', [1])", "inputs is [1]"),
    ],
)
def test_a_child_that_cannot_be_started_is_an_error_in_the_parent(working, call, words):
    working.start_execution("1", [], execution_id="taken")
    code = (
        "from durable_monty.flow import child, start_child\n"
        f"try:\n    await {call}\nexcept (ValueError, TypeError) as e:\n    out = str(e)\nout"
    )
    assert words in run(working, code, workflows=[children.doubled], check=False)


def test_a_hundred_children_at_once(working):
    assert run(working, children.family, {"values": list(range(100))}) == [2 * n for n in range(100)]

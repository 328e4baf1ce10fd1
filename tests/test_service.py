"""The service by hand: turns, pending calls, results, and clear errors that change nothing."""

from __future__ import annotations

import pytest

from durable_monty import (
    CallEnded,
    CallNotFound,
    EncodeError,
    ExecutionConflict,
    ExecutionEnded,
    ExecutionNotEnded,
    ExecutionNotFound,
    InputError,
    OrchestratorService,
    Worker,
    WorkflowCheckError,
)
from support import functions as host

TWO = "from asyncio import gather\na, b = await gather(add(1, 2), add(3, 4))\na * b"


def test_a_started_execution_is_scheduled_and_has_no_result(service):
    execution_id = service.start_execution(TWO, [host.add])
    assert service.get_execution(execution_id)["status"] == "scheduled"
    assert service.poll(execution_id)["status"] == "pending"
    with pytest.raises(ExecutionNotEnded, match="scheduled"):
        service.get_result(execution_id)


def test_calls_are_completed_by_hand_one_at_a_time(service):
    execution_id = service.start_execution(TWO, [host.add])
    assert service.process_execution(execution_id)["status"] == "waiting"
    first, second = service.get_pending_calls(execution_id)
    assert (first.function_name, first.args, first.kwargs) == ("support.functions.add", (1, 2), {})
    service.complete_call(execution_id, second.call_id, 7)
    assert [call["call_id"] for call in service.poll(execution_id)["pending_calls"]] == [first.call_id]
    service.complete_call(execution_id, first.call_id, 3)
    found = service.poll(execution_id)
    assert (found["status"], found["output"], found["pending_calls"]) == ("completed", 21, [])
    assert service.get_result(execution_id) == 21


def test_poll_without_an_id_reports_every_waiting_execution(service):
    waiting = service.start_execution(TWO, [host.add])
    service.start_execution(TWO, [host.add])
    service.process_execution(waiting)
    assert [item["execution_id"] for item in service.poll()] == [waiting]


@pytest.mark.parametrize("error", [ValueError("no"), "no"])
def test_a_call_failed_by_hand_raises_in_the_workflow(service, error):
    code = "try:\n    await add(1, 2)\nexcept (ValueError, RuntimeError) as e:\n    x = str(e)\nx"
    execution_id = service.start_execution(code, [host.add])
    service.process_execution(execution_id)
    service.fail_call(execution_id, 0, error)
    assert service.poll(execution_id)["output"] == "no"


def test_a_call_failed_by_hand_is_retried_as_the_function_says(service):
    execution_id = service.start_execution("await fail_until_third()", [host.fail_until_third])
    service.process_execution(execution_id)
    service.fail_call(execution_id, 0, ConnectionError("first"))
    (call,) = service.get_pending_calls(execution_id)
    assert call.attempt == 2
    with pytest.raises(CallEnded, match="attempt 1 is over"):
        service.complete_call(execution_id, 0, 1, attempt=1)


def test_an_outcome_for_a_call_that_has_ended_is_an_error(service):
    execution_id = service.start_execution(TWO, [host.add])
    service.process_execution(execution_id)
    service.complete_call(execution_id, 0, 3)
    with pytest.raises(CallEnded, match=r"call 0 .* is completed already"):
        service.complete_call(execution_id, 0, 4)
    with pytest.raises(CallEnded):
        service.fail_call(execution_id, 0, "late")
    service.complete_call(execution_id, 1, 7)
    assert service.poll(execution_id)["output"] == 21


def test_an_unknown_call_or_execution_is_an_error(service):
    execution_id = service.start_execution(TWO, [host.add])
    with pytest.raises(CallNotFound, match="no such call"):
        service.complete_call(execution_id, 99, 1)
    for ask in (service.get_execution, service.get_result, service.poll, service.process_execution, service.cancel):
        with pytest.raises(ExecutionNotFound, match="'nobody'"):
            ask("nobody")


def test_a_value_that_cannot_be_carried_leaves_the_call_open(service):
    execution_id = service.start_execution(TWO, [host.add])
    service.process_execution(execution_id)
    with pytest.raises(EncodeError, match=r"result\['x'\]\[1\]"):
        service.complete_call(execution_id, 0, {"x": [1, object()]})
    assert len(service.get_pending_calls(execution_id)) == 2


def test_the_same_start_twice_is_one_execution(service):
    for _ in range(2):
        assert service.start_execution(TWO, [host.add], {}, execution_id="one") == "one"
    assert len(service.list_executions()) == 1


@pytest.mark.parametrize(
    ("code", "inputs", "differs"), [("await add(n, 2)", {"n": 1}, "workflow"), ("await add(n, 1)", {"n": 2}, "inputs")]
)
def test_an_id_that_is_taken_is_an_error_that_says_what_differs(service, code, inputs, differs):
    service.start_execution("await add(n, 1)", [host.add], {"n": 1}, execution_id="one")
    with pytest.raises(ExecutionConflict, match=f"'one'.*other {differs}|'one'.*another {differs}"):
        service.start_execution(code, [host.add], inputs, execution_id="one")
    assert service.get_execution("one")["inputs"] == {"n": 1}


@pytest.mark.parametrize("execution_id", ["", "a b", "a/b", "x" * 101, 5])
def test_an_id_with_other_characters_is_refused(service, execution_id):
    with pytest.raises(ValueError, match="an id is 1 to 100"):
        service.start_execution("1", execution_id=execution_id)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "nobody defines 'n'"),
        ({"n": 1, "m": 2}, "never uses 'm'"),
        ({"n": {"a": [1, object()]}}, r"inputs\['n'\]\['a'\]\[1\]"),
    ],
)
def test_wrong_inputs_of_source_start_nothing(service, inputs, message):
    with pytest.raises(InputError, match=message):
        service.start_execution("await add(n, 1)", [host.add], inputs)
    assert service.list_executions() == []


@pytest.mark.parametrize(
    ("code", "line", "column", "message"),
    [
        ("x = 1\nawait add(1)", 2, 7, "missing|No argument"),
        ("await add(1, 'two')", 1, 14, "Expected `int`"),
        ("x = add(1, 2)\nx + 1", 2, 1, "await"),
        ("await ad(1, 2)", 1, 7, "did you mean 'add'"),
        ("def f(:\n    pass", 1, 7, "syntax"),
        ("with open('x') as f:\n    pass", 1, None, "with|open"),
    ],
)
def test_a_workflow_that_cannot_work_is_refused_with_its_place(lite_service, code, line, column, message):
    with pytest.raises(WorkflowCheckError, match=message) as caught:
        lite_service.start_execution(code, [host.add])
    problem = caught.value.problems[0]
    assert problem.line == line
    assert column is None or problem.column == column
    assert problem.source_line == code.split("\n")[line - 1]
    assert lite_service.list_executions() == []


def test_cancelling_what_has_ended_is_an_error_and_twice_is_not(service):
    execution_id = service.start_execution(TWO, [host.add])
    service.process_execution(execution_id)
    service.cancel(execution_id)
    service.cancel(execution_id)
    Worker(service).run(until_complete=True)
    with pytest.raises(ExecutionEnded, match="was cancelled already"):
        service.cancel(execution_id)


def test_wait_gives_up_after_its_time(service):
    execution_id = service.start_execution(TWO, [host.add])
    with pytest.raises(TimeoutError, match="scheduled"):
        service.wait(execution_id, timeout_seconds=0.02)


def test_what_one_service_completes_another_process_can_go_on_with(store, service):
    """Two services on one store stand for two processes: what one leaves, the other finds."""
    other = OrchestratorService(store, service.runtime.config)
    execution_id = service.start_execution(TWO, [host.add])
    service.process_execution(execution_id)
    other.complete_call(execution_id, 0, 3)
    other.process_execution(execution_id)
    service.complete_call(execution_id, 1, 7)
    assert other.poll(execution_id)["output"] == 21

"""Pause, resume, retry, deadlines: what people do to an execution that is under way or has failed."""

from __future__ import annotations

import threading
import time

import pytest

from durable_monty import ExecutionConflict, ExecutionEnded, ExecutionFailed, Worker
from support import functions as host


def begin(service, code, functions=(), **options):
    execution_id = service.start_execution(code, functions, **options)
    service.process_execution(execution_id)
    return execution_id


def complete(service, execution_id, value=None):
    (call,) = service.get_pending_calls(execution_id)
    service.complete_call(execution_id, call.call_id, value)


def test_a_paused_execution_does_not_go_on_and_its_outcomes_wait(service):
    execution_id = begin(service, "a = await identity(1)\nawait identity(a)", [host.identity])
    service.pause(execution_id, "looking into it")
    complete(service, execution_id, 5)
    Worker(service).run(until_complete=True)
    assert service.get_execution(execution_id)["status"] == "paused"
    assert service.get_execution(execution_id)["note"] == "looking into it"
    assert service.get_pending_calls(execution_id) == []
    service.resume(execution_id)
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == 5


def test_an_execution_that_is_paused_in_the_hands_of_a_worker_is_let_go(service):
    """The turn that the worker has in hand is not recorded; nothing of it is lost."""
    execution_id = service.start_execution("for i in range(1000):\n    await add(i, 1)\ni", [host.add])
    worker = Worker(service)
    thread = threading.Thread(target=lambda: worker.run(until_complete=True))
    thread.start()
    while service.runtime.store.count_calls(execution_id).get("completed", 0) < 5:
        time.sleep(0.001)
    service.pause(execution_id)
    thread.join(30)
    assert not thread.is_alive()
    paused_at = sum(service.runtime.store.count_calls(execution_id).values())
    assert paused_at < 1000
    service.resume(execution_id)
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == 999
    assert sum(service.runtime.store.count_calls(execution_id).values()) == 1000


def test_one_that_has_not_begun_can_be_paused_and_resumed(service):
    execution_id = service.start_execution("1 + 1", [])
    service.pause(execution_id)
    Worker(service).run(until_complete=True)
    assert service.get_execution(execution_id)["status"] == "paused"
    service.resume(execution_id)
    assert service.get_execution(execution_id)["status"] == "scheduled"
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == 2


def test_timers_and_signals_of_a_paused_execution_wait(service):
    code = "from asyncio import sleep\nfrom durable_monty.flow import signal\nawait sleep(0.01)\nawait signal('go')"
    execution_id = begin(service, code)
    service.pause(execution_id)
    service.signal(execution_id, "go", 7)
    time.sleep(0.02)
    Worker(service).run(until_complete=True)
    assert service.get_execution(execution_id)["status"] == "paused"
    service.resume(execution_id)
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == 7


def test_a_paused_execution_can_be_cancelled(service):
    execution_id = begin(service, "await identity(1)", [host.identity])
    service.pause(execution_id)
    service.cancel(execution_id)
    Worker(service).run(until_complete=True)
    assert service.get_execution(execution_id)["status"] == "cancelled"


def test_what_has_ended_is_neither_paused_nor_resumed(service):
    execution_id = begin(service, "1")
    for act in (service.pause, service.resume):
        with pytest.raises(ExecutionEnded, match="completed already"):
            act(execution_id)


def test_an_execution_whose_deadline_passes_is_cancelled_and_cleans_up(service):
    code = "try:\n    await nap(60)\nfinally:\n    await identity('cleanup')"
    execution_id = service.start_execution(code, [host.nap, host.identity], deadline_seconds=2)
    Worker(service).run(until_complete=True)
    found = service.get_execution(execution_id)
    assert found["status"] == "cancelled"
    assert found["error"] == "its deadline of 2 s has passed"
    assert service.runtime.store.count_calls(execution_id) == {"cancelled": 1, "completed": 1}


def test_a_deadline_that_is_kept_does_nothing(service):
    execution_id = service.start_execution("await add(1, 2)", [host.add], deadline_seconds=60)
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == 3


FAILING = "a = await identity(1)\nb = await {second}\nc = await identity(b)\n[a, b, c]"


def test_a_failed_execution_is_retried_from_where_it_failed(service):
    """The call whose failure ended it is made again; what was done before is not."""
    execution_id = begin(service, FAILING.format(second="identity(2)"), [host.identity])
    complete(service, execution_id, "first")
    service.process_execution(execution_id)
    (call,) = service.get_pending_calls(execution_id)
    service.fail_call(execution_id, call.call_id, ValueError("down"))
    service.process_execution(execution_id)
    assert service.get_execution(execution_id)["status"] == "failed"
    service.retry(execution_id)
    assert service.get_execution(execution_id)["status"] == "waiting"
    (again,) = service.get_pending_calls(execution_id)
    assert (again.call_id, again.attempt) == (call.call_id, 2)
    complete(service, execution_id, "second")
    service.process_execution(execution_id)
    complete(service, execution_id, "third")
    service.process_execution(execution_id)
    assert service.get_result(execution_id) == ["first", "second", "third"]
    assert "ValueError: down" in service.get_execution(execution_id)["note"]


def test_a_failure_in_the_first_turn_is_retried_from_the_start(service):
    execution_id = begin(service, "1 / 0")
    service.retry(execution_id)
    assert service.get_execution(execution_id)["status"] == "scheduled"
    service.process_execution(execution_id)
    assert "ZeroDivisionError" in service.get_execution(execution_id)["error"]


def test_what_a_gather_was_doing_when_one_failed_goes_on(service):
    code = "from asyncio import gather\nawait gather(identity(1), identity(2), identity(3))"
    execution_id = begin(service, code, [host.identity])
    calls = service.get_pending_calls(execution_id)
    service.complete_call(execution_id, calls[0].call_id, "a")
    service.process_execution(execution_id)
    service.fail_call(execution_id, calls[1].call_id, ValueError("no"))
    service.process_execution(execution_id)
    assert service.get_execution(execution_id)["status"] == "failed"
    assert service.runtime.store.calls(execution_id)[2].status == "cancelled"
    service.retry(execution_id)
    again = service.get_pending_calls(execution_id)
    assert [(call.call_id, call.attempt) for call in again] == [(1, 2), (2, 2)]
    for call, value in zip(again, "bc", strict=True):
        service.complete_call(execution_id, call.call_id, value)
    service.process_execution(execution_id)
    assert service.get_result(execution_id) == ["a", "b", "c"]


def test_a_retry_survives_the_loss_of_the_snapshot(service):
    execution_id = begin(service, FAILING.format(second="fail('ValueError', 'x')"), [host.identity, host.fail])
    Worker(service).run(until_complete=True)
    assert service.get_execution(execution_id)["status"] == "failed"
    service.retry(execution_id)
    with service.runtime.store._connections.write() as connection:
        connection.exec_driver_sql("DELETE FROM snapshots")
    (call,) = service.get_pending_calls(execution_id)
    service.complete_call(execution_id, call.call_id, "mended")
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == [1, "mended", "mended"]


def test_a_parent_that_failed_with_its_child_is_retried_with_it(service):
    from support.children import failing_parent

    service.start_execution(failing_parent, inputs={"text": "no"}, execution_id="p")
    Worker(service).run(until_complete=True)
    assert service.get_execution("p")["status"] == "failed"
    service.retry("p")
    assert service.get_execution("p-0")["status"] == "waiting"
    (call,) = service.get_pending_calls("p-0")
    service.complete_call("p-0", call.call_id, None)
    Worker(service).run(until_complete=True)
    assert service.get_result("p") is None


@pytest.mark.parametrize("status", ["waiting", "completed", "cancelled"])
def test_only_a_failed_execution_can_be_retried(service, status):
    execution_id = begin(service, "1" if status == "completed" else "await identity(1)", [host.identity])
    if status == "cancelled":
        service.cancel(execution_id)
        service.process_execution(execution_id)
    with pytest.raises(ExecutionConflict, match=f"it is {status}; only a failed one"):
        service.retry(execution_id)


def test_the_result_of_a_failed_execution_is_still_an_error_after_a_retry_that_fails(service):
    execution_id = service.start_execution("await fail('ValueError', 'x')", [host.fail])
    for _ in range(2):
        Worker(service).run(until_complete=True)
        with pytest.raises(ExecutionFailed, match="ValueError: x"):
            service.get_result(execution_id)
        service.retry(execution_id)
    assert service.runtime.store.calls(execution_id)[0].attempt == 3

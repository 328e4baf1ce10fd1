"""The snippets with which the project began: scripts written for them go on working."""

from __future__ import annotations

import threading
import time

import pytest

from durable_monty import Executor, LocalExecutor, OrchestratorService, Worker, init_db
from durable_monty.functions import execute_function
from durable_monty.models import Call, from_json, to_json


def add(a, b):
    return a + b


GATHER = """
from asyncio import gather
xs = await gather(add(1, 2), add(3, 4), add(5, 6))
sum(xs)
"""


@pytest.fixture
def seed_service(tmp_path):
    service = OrchestratorService(init_db())
    assert (tmp_path / "durable_functions.db").exists()
    yield service
    service.close()


def test_the_default_executor_and_a_worker_until_everything_is_complete(seed_service):
    execution_id = seed_service.start_execution(GATHER, [add])
    Worker(seed_service, executor=LocalExecutor()).run(until_complete=True)
    assert seed_service.get_result(execution_id) == 21


def test_ten_passes_complete_a_gather(seed_service):
    execution_id = seed_service.start_execution(GATHER, [add])
    worker = Worker(seed_service, LocalExecutor())
    for _ in range(10):
        worker.run(once=True)
    assert seed_service.poll(execution_id)["status"] == "completed"


def test_once_and_until_complete_exclude_each_other(seed_service):
    with pytest.raises(ValueError, match="choose one"):
        Worker(seed_service).run(once=True, until_complete=True)


def test_stop_from_another_thread_does_not_wait_for_the_poll_interval(seed_service):
    worker = Worker(seed_service, poll_interval=60)
    thread = threading.Thread(target=worker.run)
    thread.start()
    time.sleep(0.2)
    worker.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_stop_does_not_wait_for_a_function_that_runs(seed_service):
    begun = threading.Event()

    def hang():
        begun.set()
        time.sleep(20)

    seed_service.start_execution("await hang()", [hang])
    worker = Worker(seed_service)
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert begun.wait(10)
    worker.stop()
    thread.join(5)
    assert not thread.is_alive()
    (call,) = seed_service.get_pending_calls(seed_service.list_executions()[0]["execution_id"])
    assert call.attempt == 1, "an orderly stop costs no attempt"


class Inbox:
    """Only the two methods; derived from nothing."""

    def __init__(self):
        self.calls = []

    def submit_call(self, call):
        self.calls.append(call)

    def get_stats(self):
        return {"submitted": len(self.calls)}


class DerivedInbox(Executor):
    def __init__(self):
        self.calls = []

    def submit_call(self, call: Call) -> None:
        assert from_json(to_json({"args": from_json(call.args)})) == {"args": call.args}
        self.calls.append(call)

    def get_stats(self):
        return {"submitted": len(self.calls)}


@pytest.mark.parametrize("kind", [Inbox, DerivedInbox])
def test_a_class_with_two_methods_is_an_executor(seed_service, kind):
    execution_id = seed_service.start_execution(GATHER, [add])
    inbox = kind()
    worker = Worker(seed_service, executor=inbox)
    worker.run(once=True)
    assert inbox.get_stats() == {"submitted": 3}
    for call in inbox.calls:
        result = execute_function(call.function_name, from_json(call.args))
        seed_service.complete_call(call.execution_id, call.call_id, result)
    worker.run(once=True)
    assert seed_service.get_result(execution_id) == 21


def test_an_executor_that_raises_is_asked_again(seed_service):
    class Shy(Inbox):
        def submit_call(self, call):
            if not self.calls:
                self.calls.append(None)
                raise ConnectionError("not now")
            super().submit_call(call)
            seed_service.complete_call(call.execution_id, call.call_id, sum(call.args))

    execution_id = seed_service.start_execution("await add(1, 2)", [add])
    Worker(seed_service, Shy()).run(until_complete=True)
    assert seed_service.get_result(execution_id) == 3

"""Calls that may or may not have been started, because a worker died between starting them and noting where they are."""

from __future__ import annotations

import pytest

from durable_monty import OrchestratorService, Worker, function, init_db
from durable_monty.config import Config
from durable_monty.hookspecs import hookimpl
from durable_monty.models import Accepted, Capabilities, Failure, Outcome
from support import functions as host
from support.scripted import Scripted
from support.workers import eventually, running


@function(idempotent=True)
def set_to(value: int) -> int:
    return value


class Silent(Scripted):
    """Takes calls as its back end does, and tells no token by which another worker could find them."""

    @hookimpl
    def submit(self, calls):
        self.submitted += [call.job_id for call in calls]
        return [Accepted(call.job_id) for call in calls]


class Knowing(Scripted):
    def __init__(self, answer, **scripts):
        super().__init__(**scripts)
        self._answer = answer

    @hookimpl
    def find(self, jobs):
        return {job.job_id: self._answer for job in jobs}


def left_behind(tmp_path, code, functions):
    """An execution whose call a worker that is gone has started, or was about to."""
    service = OrchestratorService(init_db(f"sqlite:///{tmp_path / 'a.db'}", synchronous="NORMAL"), Config())
    execution_id = service.start_execution(code, functions)
    executor = Silent()
    with running(Worker(service, executor)):
        eventually(lambda: executor.submitted)
    (row,) = service.runtime.store.calls(execution_id)
    service.close()
    assert (row.status, row.token) == ("submitting", None)
    return OrchestratorService(init_db(f"sqlite:///{tmp_path / 'a.db'}", synchronous="NORMAL"), Config()), execution_id


def test_a_call_that_may_have_been_started_is_not_started_again(tmp_path):
    """Charging a card twice is worse than telling the workflow."""
    code = "try:\n    await add(1, 2)\nexcept RuntimeError as e:\n    found = str(e)\nfound"
    service, execution_id = left_behind(tmp_path, code, [host.add])
    with service:
        executor = Scripted()
        Worker(service, executor).run(until_complete=True)
        assert service.get_result(execution_id).startswith("ambiguous: the worker that was about to start it")
        assert executor.submitted == []


def test_a_call_of_an_idempotent_function_that_may_have_been_started_is_tried_again(tmp_path):
    service, execution_id = left_behind(tmp_path, "await set_to(3)", [set_to])
    with service:
        executor = Scripted()
        Worker(service, executor).run(until_complete=True)
        assert service.get_result(execution_id) == 3
        assert executor.submitted == [f"{execution_id}-0-2"], "as an attempt of its own"


def test_a_call_that_the_back_end_never_saw_is_submitted(tmp_path):
    service, execution_id = left_behind(tmp_path, "await add(1, 2)", [host.add])
    with service:
        executor = Knowing("absent")
        Worker(service, executor).run(until_complete=True)
        assert service.get_result(execution_id) == 3
        assert executor.submitted == [f"{execution_id}-0-1"]


def test_a_call_that_may_have_been_started_in_the_dead_process_is_lost_and_tried_again(tmp_path):
    """What runs inside the worker dies with it, so that nothing can still be running."""

    class Within(Scripted):
        capabilities = Capabilities(survives_restart=False, poll_interval_seconds=0.01)

    service, execution_id = left_behind(tmp_path, "await add(1, 2)", [host.add])
    with service:
        executor = Within()
        Worker(service, executor).run(until_complete=True)
        assert service.get_result(execution_id) == 3
        assert executor.submitted == [f"{execution_id}-0-2"]


@pytest.mark.parametrize(("declared", "attempts"), [(host.identity, 1), (set_to, 10)])
def test_an_idempotent_function_is_tried_as_often_as_a_lost_one(lite_service, declared, attempts):
    """An executor may find out by itself that it cannot tell; that does not go on for ever."""
    name = declared.__name__
    code = f"try:\n    await {name}(3)\nexcept RuntimeError as e:\n    found = str(e)\nfound"
    execution_id = lite_service.start_execution(code, [declared])
    lite_service.process_execution(execution_id)
    tried = 0
    while lite_service.poll(execution_id)["status"] == "pending":
        lite_service.fail_call(execution_id, 0, Failure("ambiguous", "Ambiguous", "no answer came"))
        tried += 1
    assert lite_service.get_result(execution_id) == "ambiguous: no answer came"
    assert tried == attempts


def test_an_executor_that_cannot_tell_delivers_an_ambiguous_failure(lite_service):
    def unsure(jobs):
        return [Outcome(job.job_id, failure=Failure("ambiguous", "Ambiguous", "no answer came")) for job in jobs]

    executor = Scripted(poll=[unsure])
    execution_id = lite_service.start_execution("await set_to(3)", [set_to])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert executor.submitted == [f"{execution_id}-0-1", f"{execution_id}-0-2"]


class Pushing:
    """As a user writes one in a script: hands calls on, and hears of results through the service."""

    def __init__(self):
        self.submitted = []

    def submit_call(self, call):
        self.submitted.append(call.job_id)

    def get_stats(self):
        return {}


def test_a_call_that_an_executor_of_a_script_has_accepted_is_waited_for_after_a_restart(tmp_path):
    """It was handed on, and its result may come any time; it is neither started again nor called ambiguous."""
    url = f"sqlite:///{tmp_path / 'p.db'}"
    first, second = Pushing(), Pushing()
    with OrchestratorService(init_db(url, synchronous="NORMAL"), Config()) as service:
        execution_id = service.start_execution("await add(1, 2)", [host.add])
        with running(Worker(service, first)):
            eventually(lambda: [row.status for row in service.runtime.store.calls(execution_id)] == ["submitted"])
    with OrchestratorService(init_db(url, synchronous="NORMAL"), Config()) as service:
        with running(Worker(service, second)):
            eventually(lambda: service.runtime.store.jobs_of(service.runtime.lease.worker))
            service.complete_call(execution_id, 0, 3)
            service.wait(execution_id, 30)
        assert service.get_result(execution_id) == 3
    assert second.submitted == []

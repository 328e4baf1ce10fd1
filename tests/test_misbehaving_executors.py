"""Executors that raise, refuse, stammer or lose jobs: nothing is lost, and the workflow sees one outcome."""

from __future__ import annotations

import threading

import pytest

from durable_monty import Executor, OrchestratorService, Worker, init_db
from durable_monty.config import Config
from durable_monty.hookspecs import hookimpl
from durable_monty.models import Capabilities, Failure, Outcome, Refused
from support import functions as host
from support.scripted import Scripted
from support.workers import DEADLINE_SECONDS, eventually, running

FOREIGN = b'{"body":{"v":1,"job_id":"%s","value":7,"seconds":0.1}}'


def test_an_executor_that_cannot_start_is_started_again_and_its_calls_wait(lite_service):
    """Its back end is away when the worker begins; nobody has to start the worker again."""
    executor = Scripted(start=[ConnectionError("away"), ConnectionError("away")])
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert executor.submitted == [f"{execution_id}-0-1"]


def test_an_executor_whose_stop_raises_does_not_keep_the_worker_from_ending_in_order(lite_service, caplog):
    class Clinging(Scripted):
        @hookimpl
        def stop(self, grace_seconds):
            raise ConnectionError("away")

    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, Clinging()).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert "stopping an executor failed" in caplog.text


def test_a_submit_that_raises_loses_nothing_and_costs_no_attempt(lite_service):
    executor = Scripted(submit=[ConnectionError("away"), ConnectionError("away")])
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert executor.submitted == [f"{execution_id}-0-1"] * 3


def test_a_poll_that_raises_counts_as_no_news(lite_service):
    executor = Scripted(poll=[ConnectionError("away"), ConnectionError("away")])
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert executor.submitted == [f"{execution_id}-0-1"], "it was not submitted again"


def test_a_complete_that_raises_is_asked_again_and_changes_no_outcome(lite_service):
    executor = Scripted(complete=[ConnectionError("away")])
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    with running(Worker(lite_service, executor, poll_interval=0.05)):
        eventually(lambda: len(executor.completed) >= 2)
        assert lite_service.wait(execution_id, DEADLINE_SECONDS)["output"] == 3
    assert executor.completed[:2] == [[f"{execution_id}-0-1"]] * 2


def test_a_broken_executor_holds_up_no_other(tmp_path):
    class Broken(Scripted):
        @hookimpl
        def submit(self, calls):
            raise ConnectionError("away for good")

    table = {"function": {"support.functions.add": {"executor": "local"}}}
    config = Config.model_validate({"executor": "broken", **table})
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), config) as service:
        stuck = service.start_execution("await identity(1)", [host.identity])
        healthy = [service.start_execution("await add(1, 2)", [host.add]) for _ in range(5)]
        with running(Worker(service, Broken())):
            for execution_id in healthy:
                assert service.wait(execution_id, DEADLINE_SECONDS)["output"] == 3
        assert [call.attempt for call in service.get_pending_calls(stuck)] == [1]


def test_a_call_that_an_executor_refuses_for_now_is_submitted_again(lite_service):
    def refuse(calls):
        return [Refused(call.job_id, "full", retry_after_seconds=0.01) for call in calls]

    executor = Scripted(submit=[refuse, refuse])
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert executor.submitted == [f"{execution_id}-0-1"] * 3


def test_a_call_that_an_executor_refuses_for_good_is_raised_in_the_workflow(lite_service):
    executor = Scripted(submit=[lambda calls: [Refused(call.job_id, "no such queue") for call in calls]])
    code = "try:\n    await add(1, 2)\nexcept RuntimeError as e:\n    found = str(e)\nfound"
    execution_id = lite_service.start_execution(code, [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == "refused: no such queue"


def test_a_call_that_an_executor_does_not_answer_for_is_submitted_again(lite_service, caplog):
    executor = Scripted(submit=[lambda calls: []])
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert "did not answer for every call" in caplog.text


def test_an_outcome_that_is_told_twice_is_delivered_once(lite_service):
    class Stammering(Scripted):
        told = ()

        @hookimpl
        def poll(self, jobs, wait_seconds):
            outcomes = self._outcomes
            again, self.told, self._outcomes = self.told, outcomes, []
            return [*again, *outcomes, *outcomes]

    code = "seen = []\nfor i in range(3):\n    seen.append(await add(i, 1))\nseen"
    execution_id = lite_service.start_execution(code, [host.add])
    Worker(lite_service, Stammering()).run(until_complete=True)
    assert lite_service.get_result(execution_id) == [1, 2, 3]


@pytest.mark.parametrize("reply", [b"\xff\x00", b"{}", b"", b'{"job_id": "another-0-1", "value": 1}'])
def test_a_reply_that_is_none_of_ours_fails_the_call_and_not_the_worker(lite_service, reply):
    executor = Scripted(poll=[lambda jobs: [Outcome(job.job_id, reply=reply) for job in jobs]])
    code = "try:\n    await add(1, 2)\nexcept RuntimeError as e:\n    found = str(e)\nfound"
    execution_id = lite_service.start_execution(code, [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id).startswith("undecodable: ")


def test_a_reply_with_more_in_it_than_ours_gives_its_value(lite_service):
    """Written by a remote side in another language, or by a newer one."""

    def reply(jobs):
        return [Outcome(job.job_id, reply=FOREIGN % job.job_id.encode()) for job in jobs]

    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, Scripted(poll=[reply])).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 7


def test_an_executor_gets_no_more_jobs_than_it_takes(lite_service):
    class Narrow(Scripted):
        capabilities = Capabilities(survives_restart=True, poll_interval_seconds=0.01, max_in_flight=2, max_batch=1)
        most = 0

        @hookimpl
        def submit(self, calls):
            assert len(calls) == 1
            self.most = max(self.most, len(self.submitted) + 1 - sum(map(len, self.completed)))
            return super().submit(calls)

    executor = Narrow()
    code = "from asyncio import gather\nsum(await gather(*[add(i, 1) for i in range(7)]))"
    execution_id = lite_service.start_execution(code, [host.add])
    Worker(lite_service, executor, poll_interval=0.05).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 28
    assert executor.most <= 2


def test_a_lost_attempt_does_not_spend_the_functions_own_attempts(lite_service):
    """The function has one attempt of its own; the infrastructure fails twice."""

    class Shaky(Scripted):
        @hookimpl
        def poll(self, jobs, wait_seconds):
            kinds = {"1": "lost", "2": "unavailable"}
            failed = [job.job_id for job in jobs if job.job_id[-1] in kinds]
            if failed:
                return [Outcome(key, failure=Failure(kinds[key[-1]], "Lost", "gone")) for key in failed]
            return self._outcomes[-1:]

    executor = Shaky()
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert executor.submitted == [f"{execution_id}-0-{attempt}" for attempt in (1, 2, 3)]


def test_a_late_outcome_of_an_older_attempt_is_ignored_and_completed(lite_service):
    """The machine that was believed lost comes back: its executor may forget the job, the workflow sees the other."""

    class Late(Scripted):
        @hookimpl
        def poll(self, jobs, wait_seconds):
            (job,) = jobs
            if job.job_id.endswith("-1"):
                return [Outcome(job.job_id, failure=Failure("lost", "Lost", "gone"))]
            first, second = self._outcomes[0], self._outcomes[-1]
            return [first, second]

    executor = Late()
    execution_id = lite_service.start_execution("await attempt_number()", [host.attempt_number])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 2
    assert f"{execution_id}-0-1" in {job_id for job_ids in executor.completed for job_id in job_ids}


def test_a_small_executor_of_a_script_may_answer_from_a_thread_of_its_own(lite_service):
    class Threads(Executor):
        def submit_call(self, call):
            threading.Thread(target=self._run, args=(call,)).start()

        def get_stats(self):
            return {}

        def _run(self, call):
            lite_service.complete_call(call.execution_id, call.call_id, sum(call.args), attempt=call.attempt)

    code = "from asyncio import gather\nawait gather(*[add(i, 1) for i in range(20)])"
    execution_id = lite_service.start_execution(code, [host.add])
    Worker(lite_service, Threads(), poll_interval=3600).run(until_complete=True)
    assert lite_service.get_result(execution_id) == list(range(1, 21))


def test_an_outcome_that_is_told_again_leaves_the_record_of_its_delivery_alone(service):
    """The first call's outcome enters the workflow alone; it is told again with the one that lets it go on."""

    class Repeating(Scripted):
        @hookimpl
        def poll(self, jobs, wait_seconds):
            first, *others = self._outcomes
            if not self.completed:
                return [first]
            return [first, *others]

    code = "from asyncio import gather\ntwo = await gather(add(1, 2), add(3, 4))\nsum(two) + await add(5, 6)"
    execution_id = service.start_execution(code, [host.add])
    Worker(service, Repeating()).run(until_complete=True)
    assert service.get_result(execution_id) == 21
    places = [(call.batch, call.position) for call in service.runtime.store.calls(execution_id)]
    assert places == [(0, 0), (1, 0), (2, 0)]


def test_an_outcome_of_an_attempt_that_is_over_comes_again_with_the_one_that_counts(service):
    """It took neither the place of the other's delivery nor its value."""

    class Stammering(Scripted):
        @hookimpl
        def poll(self, jobs, wait_seconds):
            return list(self._outcomes)

        @hookimpl
        def complete(self, jobs): ...

    execution_id = service.start_execution("[await always_fails_once(), 1]", [host.always_fails_once])
    Worker(service, Stammering()).run(until_complete=True)
    assert service.get_result(execution_id) == [2, 1]
    (call,) = service.runtime.store.calls(execution_id)
    assert (call.status, call.attempt, call.outcome) == ("completed", 2, "2")
    assert (call.batch, call.position) == (0, 0)


def test_a_job_is_not_polled_before_its_submission_has_returned(lite_service):
    """The executor would not know it yet, and rightly say that it is lost."""

    class Slow(Scripted):
        submitting = frozenset()
        polled_early = False

        @hookimpl
        def submit(self, calls):
            self.submitting = {call.job_id for call in calls}
            polled_since.wait(0.2)
            answers = super().submit(calls)
            self.submitting = frozenset()
            return answers

        @hookimpl
        def poll(self, jobs, wait_seconds):
            self.polled_early |= any(job.job_id in self.submitting for job in jobs)
            polled_since.set()
            return super().poll(jobs, wait_seconds)

    polled_since = threading.Event()
    executor = Slow()
    execution_id = lite_service.start_execution("await add(await add(1, 2), 3)", [host.add])
    Worker(lite_service, executor).run(until_complete=True)
    assert lite_service.get_result(execution_id) == 6
    assert not executor.polled_early

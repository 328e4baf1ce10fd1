"""The local executor through its hooks, and through a worker where the worker is part of the promise."""

from __future__ import annotations

import threading
import time

import pytest
from pydantic import ValidationError

from durable_monty import Call, LocalExecutor, OrchestratorService, Worker, init_db, remote
from durable_monty.config import Config
from durable_monty.envelope import encode_envelope
from durable_monty.models import Job
from support import functions as host


def make_call(number, function, *args, timeout_seconds=None):
    from durable_monty import codec

    key, arguments = f"e-{number}-1", codec.dumps([list(args), {}])
    envelope = encode_envelope(key, function.path, arguments, None)
    return Call(key, "e", number, 1, function.path, arguments, envelope, timeout_seconds, None, 0, {})


def outcomes_of(executor, calls, count=None):
    """Submit without `start`, so that outcomes are kept for `poll`."""
    assert [answer.job_id for answer in executor.submit(calls)] == [call.job_id for call in calls]
    found = {}
    ends_at = time.monotonic() + 30
    while len(found) < (count or len(calls)) and time.monotonic() < ends_at:
        jobs = [Job(call.job_id) for call in calls if call.job_id not in found]
        found |= {outcome.job_id: outcome for outcome in executor.poll(jobs, 0.1)}
    executor.complete([Job(call.job_id) for call in calls])
    return [found[call.job_id] for call in calls if call.job_id in found]


@pytest.fixture(params=["thread", "process", "inline"])
def executor(request):
    made = LocalExecutor(mode=request.param, workers=2)
    yield made
    made.stop(0)


def test_values_and_failures_come_back(executor):
    calls = [make_call(0, host.add, 1, 2), make_call(1, host.fail, "KeyError", "k"), make_call(2, host.nap, 0, 7)]
    value, failure, napped = (remote.read_reply(outcome.reply) for outcome in outcomes_of(executor, calls))
    assert (value.value, napped.value) == (3, 7)
    assert failure.failure.type == "KeyError"


def test_async_functions_run_side_by_side_whatever_their_number():
    """Each waits until all have begun: with fewer at a time none would end."""
    executor = LocalExecutor(workers=1)
    outcomes = outcomes_of(executor, [make_call(n, host.nap, 0.3, n) for n in range(1000)])
    assert sorted(remote.read_reply(outcome.reply).value for outcome in outcomes) == list(range(1000))
    executor.stop(0)


def test_processes_are_other_processes():
    import os

    executor = LocalExecutor(mode="process", workers=1)
    (outcome,) = outcomes_of(executor, [make_call(0, host.process_id)])
    assert remote.read_reply(outcome.reply).value != os.getpid()
    executor.stop(0)


def test_a_function_that_takes_its_process_down_is_lost_and_the_next_one_runs():
    executor = LocalExecutor(mode="process", workers=1)
    lost, value = outcomes_of(executor, [make_call(0, host.exit_process), make_call(1, host.add, 1, 1)])
    assert lost.failure.kind == "lost"
    assert remote.read_reply(value.reply).value == 2
    executor.stop(0)


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_a_function_past_its_timeout_fails_in_time(mode):
    executor = LocalExecutor(mode=mode, workers=1)
    (outcome,) = outcomes_of(executor, [make_call(0, host.sleep, 3, timeout_seconds=0.2)])
    assert outcome.failure.kind == "timeout"
    executor.stop(0)


def test_what_is_cancelled_before_it_begins_never_runs(tmp_path):
    executor = LocalExecutor(workers=1)
    file = str(tmp_path / "notes")
    calls = [make_call(0, host.sleep, 0.3), make_call(1, host.note, file, "ran")]
    executor.submit(calls)
    assert executor.cancel([Job(calls[1].job_id)], force=True) == {calls[1].job_id: True}
    outcomes_of(executor, [make_call(2, host.add, 1, 1)])
    assert not (tmp_path / "notes").exists()
    executor.stop(0)


@pytest.mark.parametrize("settings", [{"mode": "fork"}, {"workers": 0}, {"worker": 1}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        LocalExecutor(**settings)


def test_check_and_stats_are_for_people():
    executor = LocalExecutor(workers=3)
    (finding,) = executor.check()
    assert (finding.level, "3 threads" in finding.message) == ("info", True)
    outcomes_of(executor, [make_call(0, host.add, 1, 1)])
    assert executor.stats()["accepted"] == 1
    executor.stop(0)


def test_a_thousand_calls_that_wait_are_all_begun_before_one_ends(tmp_path):
    """Through a worker: what bounds the number of open calls is not the number of threads."""
    service = OrchestratorService(init_db(f"sqlite:///{tmp_path / 'a.db'}", synchronous="NORMAL"), Config())
    code = "from asyncio import gather\nlen(await gather(*[nap(1.5) for _ in range(1000)]))"
    execution_id = service.start_execution(code, [host.nap])
    worker = Worker(service)
    thread = threading.Thread(target=worker.run, kwargs={"until_complete": True})
    thread.start()
    thread.join(60)
    calls = service.runtime.store.calls(execution_id)
    assert service.get_result(execution_id) == 1000
    assert max(call.created_at for call in calls) < min(call.ended_at for call in calls)
    service.close()

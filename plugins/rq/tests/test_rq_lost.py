"""Jobs whose reply does not come: lost ones run again, those that are alive do not, and no reply gets lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry

from durable_monty import Worker, remote
from durable_monty.models import Job
from durable_monty_rq import results
from support import functions as host
from support.rq_rig import make_call, poll
from support.workers import eventually, running

pytestmark = pytest.mark.slow
SHIFTED = Path(host.__file__).parent / "shifted_clock.py"
RQ = Path(sys.executable).parent / "rq"
SIMPLE = ("-w", "rq.SimpleWorker")
FORK_SLOW = ("--job-monitoring-interval", "300")
SHORT = {"lost_after_seconds": 1.5, "sweep_interval_seconds": 0.3}


def kill_tree(process):
    """SIGKILL the worker first, or it would see its work horse die; then what it started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


def held(rig, executor, tmp_path):
    """Start an execution whose only call waits for a file; gives its id and the two files."""
    begun, release = tmp_path / "begun", tmp_path / "release"
    inputs = {"begun": str(begun), "release": str(release)}
    return rig.service.start_execution("await hold(begun, release)", [host.hold], inputs), begun, release


@pytest.mark.parametrize("options", [(), SIMPLE], ids=["fork", "simple"])
def test_the_job_of_a_worker_that_was_killed_with_all_its_processes_runs_again(
    rig, valkey, start_rq_worker, tmp_path, options
):
    queue = f"killed-{len(options)}"
    executor = rig.executor(queue, **SHORT)
    doomed = start_rq_worker(valkey.url, queue, *options)
    execution_id, begun, release = held(rig, executor, tmp_path)
    with running(Worker(rig.service, executor)):
        eventually(begun.exists)
        kill_tree(doomed)
        release.touch()
        start_rq_worker(valkey.url, queue, *options)
        assert rig.service.wait(execution_id, 30)["output"] == 2
    assert begun.read_text().split() == ["1", "2"]


def beats(rig, job_id):
    """Wait for two signs of life of a running job; its executor waits for three times as long for one."""
    for _ in range(2):
        before = rig.connection.hget(RQJob.key_for(job_id), "last_heartbeat")
        eventually(lambda before=before: rig.connection.hget(RQJob.key_for(job_id), "last_heartbeat") != before)


@pytest.mark.parametrize("options", [FORK_SLOW, SIMPLE], ids=["fork", "simple"])
def test_a_job_that_runs_for_long_gives_signs_of_life_whatever_the_workers_class(rig, listening, tmp_path, options):
    """RQ itself gives none meanwhile: a `SimpleWorker` never does, the other one every 300 s."""
    executor = rig.executor(listening(*options), lost_after_seconds=6)
    execution_id, begun, release = held(rig, executor, tmp_path)
    with running(Worker(rig.service, executor)):
        eventually(begun.exists)
        beats(rig, f"{execution_id}-0-1")
        release.touch()
        assert rig.service.wait(execution_id, 30)["output"] == 1
    assert executor.stats()["accepted"] == 1


def test_a_job_on_a_machine_whose_clock_is_late_is_not_taken_for_dead(rig, valkey, start_rq_worker, tmp_path):
    """Its signs of life bear the time of its own machine."""
    executor = rig.executor("late", lost_after_seconds=3)
    start_rq_worker(valkey.url, "late", program=[sys.executable, SHIFTED, "-3600", RQ])
    execution_id, begun, release = held(rig, executor, tmp_path)
    with running(Worker(rig.service, executor)):
        eventually(begun.exists)
        beats(rig, f"{execution_id}-0-1")
        beats(rig, f"{execution_id}-0-1")
        release.touch()
        assert rig.service.wait(execution_id, 30)["output"] == 1
    assert executor.stats()["accepted"] == 1


def test_the_reply_of_an_orphaned_work_horse_counts(rig, valkey, start_rq_worker, tmp_path):
    """Only the parent is killed: the function runs on, gives signs of life, and is not run again."""
    executor = rig.executor("orphaned", lost_after_seconds=6)
    doomed = start_rq_worker(valkey.url, "orphaned")
    execution_id, begun, release = held(rig, executor, tmp_path)
    with running(Worker(rig.service, executor)):
        eventually(begun.exists)
        doomed.kill()
        doomed.wait()
        beats(rig, f"{execution_id}-0-1")
        release.touch()
        assert rig.service.wait(execution_id, 30)["output"] == 1
    assert begun.read_text().split() == ["1"]


def test_a_job_that_rqs_registries_gave_up_runs_again(rig, valkey, start_rq_worker, tmp_path):
    """Another `rq worker` has found its execution expired and called it abandoned."""
    executor = rig.executor("abandoned", lost_after_seconds=3600)
    doomed = start_rq_worker(valkey.url, "abandoned")
    execution_id, begun, release = held(rig, executor, tmp_path)
    with running(Worker(rig.service, executor)):
        eventually(begun.exists)
        kill_tree(doomed)
        registry = StartedJobRegistry("abandoned", connection=rig.connection)
        for member in rig.connection.zrange(registry.key, 0, -1):
            rig.connection.zadd(registry.key, {member: 1})
        registry.cleanup()
        assert "AbandonedJobError" in rig.job(f"{execution_id}-0-1").latest_result().exc_string
        release.touch()
        start_rq_worker(valkey.url, "abandoned")
        assert rig.service.wait(execution_id, 30)["output"] == 2


@pytest.mark.parametrize("how", ["expired", "flushed"])
def test_a_job_that_redis_has_forgotten_is_lost_not_failed(rig, how):
    executor = rig.executor("nobody")
    call = make_call(host.add, 1, 2)
    executor.submit([call])
    if how == "expired":
        rig.connection.pexpire(RQJob.key_for(call.job_id), 1)
    else:
        rig.job(call.job_id).delete()
        rig.connection.delete(rig.stream)
    failure = poll(executor, [call])[call.job_id].failure
    assert (failure.kind, failure.message) == (
        "lost",
        "its job is not in Redis any more: flushed, expired or restarted",
    )


def test_a_job_that_its_worker_had_taken_and_not_begun_when_it_died_is_lost(rig):
    executor = rig.executor("nobody", **SHORT)
    call = make_call(host.add, 1, 2)
    executor.submit([call])
    assert rig.connection.lrem("rq:queue:nobody", 1, call.job_id) == 1
    failure = poll(executor, [call])[call.job_id].failure
    assert failure.kind == "lost"
    assert "before it began" in failure.message


def test_a_job_that_waits_behind_one_that_was_put_in_by_a_clock_that_is_ahead_is_not_lost(rig):
    executor = rig.executor("skewed", **SHORT)
    ahead, behind = make_call(host.add, 1, 2), make_call(host.add, 3, 4)
    executor.submit([ahead])
    rig.connection.hset(RQJob.key_for(ahead.job_id), "enqueued_at", "2999-01-01T00:00:00.000000Z")
    executor.submit([behind])
    ends_at = time.monotonic() + 3 * SHORT["lost_after_seconds"]
    while time.monotonic() < ends_at:
        assert executor.poll([Job(ahead.job_id), Job(behind.job_id)], 0.1) == []
    executor.cancel([Job(ahead.job_id), Job(behind.job_id)], force=False)


def test_every_open_job_is_looked_at_though_each_poll_names_only_a_part(rig):
    """3,000 open jobs come in three slices, one a poll."""
    executor = rig.executor("nobody", sweep_interval_seconds=0.2)
    calls = [make_call(host.add, number, 1) for number in range(3000)]
    for start in range(0, 3000, 1000):
        executor.submit(calls[start : start + 1000])
    rig.connection.unlink(*(RQJob.key_for(call.job_id) for call in calls))
    rig.connection.delete("rq:queue:nobody")
    lost = Counter()

    def poll_slices():
        for start in range(0, 3000, 1000):
            jobs = [Job(call.job_id) for call in calls[start : start + 1000]]
            lost.update(outcome.job_id for outcome in executor.poll(jobs, 0.05))
        return len(lost) == 3000

    eventually(poll_slices)


# Replies


def test_a_reply_outlives_what_rq_keeps_of_its_job(rig, listening):
    """RQ forgets a job after some time; the reply stays until it is durable on our side."""
    executor = rig.executor(listening(*SIMPLE))
    calls = [make_call(host.add, number, 1) for number in range(3)]
    executor.submit(calls)
    eventually(lambda: rig.connection.xlen(rig.stream) == 3)
    for call in calls:
        eventually(lambda call=call: rig.job(call.job_id).get_status() == "finished")
        rig.job(call.job_id).delete()
    assert rig.connection.ttl(rig.stream) == -1, "the stream of results never expires"
    later = rig.executor(listening(*SIMPLE))
    outcomes = poll(later, calls)
    assert [remote.read_reply(outcomes[call.job_id].reply).value for call in calls] == [1, 2, 3]


def test_a_reply_that_was_read_by_a_worker_that_died_is_read_by_another(rig, listening):
    queue = listening(*SIMPLE)
    dying, heir = rig.executor(queue), rig.executor(queue, claim_after_seconds=0.5)
    call = make_call(host.add, 1, 2)
    dying.submit([call])
    first = poll(dying, [call])[call.job_id]
    second = poll(heir, [call])[call.job_id]
    assert first == second
    heir.complete([Job(call.job_id)])
    assert rig.connection.xlen(rig.stream) == 0
    assert rig.connection.xpending(rig.stream, results.GROUP)["pending"] == 0


def test_complete_is_idempotent_and_takes_jobs_it_never_heard_of(rig, listening):
    executor = rig.executor(listening(*SIMPLE))
    call = make_call(host.add, 1, 2)
    executor.submit([call])
    poll(executor, [call])
    for _ in range(2):
        executor.complete([Job(call.job_id), Job("never-heard-of-0-1")])
    assert rig.connection.xlen(rig.stream) == 0


def test_nothing_is_acknowledged_before_its_outcome_is_durable(rig, listening):
    """At every step of the worker: while the call has no outcome in the database its reply is in the stream."""
    seen = []

    def look(step):
        row = rig.service.runtime.store.call(execution_id, 0)
        if row is not None and not row.status.is_terminal and step == "calls submitted":
            eventually(lambda: rig.connection.xlen(rig.stream) == 1)
        seen.append((step, row.status.is_terminal if row else None, rig.connection.xlen(rig.stream)))

    execution_id = rig.service.start_execution("await add(1, 2)", [host.add])
    Worker(rig.service, rig.executor(listening(*SIMPLE)), on_step=look).run(until_complete=True)
    assert ("calls submitted", False, 1) in seen
    assert ("turns recorded", True, 1) in seen, "durable, and still there"
    assert seen[-1] == ("jobs completed", True, 0)


def test_what_rq_keeps_of_a_job_that_did_not_end_well_is_removed_when_its_outcome_is_durable(rig, listening):
    executor = rig.executor(listening())
    call = make_call(host.kill_itself)
    executor.submit([call])
    poll(executor, [call])
    assert RQJob.exists(call.job_id, connection=rig.connection)
    executor.complete([Job(call.job_id)])
    assert not RQJob.exists(call.job_id, connection=rig.connection)
    assert rig.connection.zscore(f"rq:failed:{listening()}", call.job_id) is None

"""What is put into Redis, where, how often, how much at once, and how it is taken out again."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from rq.job import Job as RQJob

from durable_monty import OrchestratorService, Worker, init_db, remote
from durable_monty.config import Config
from durable_monty.models import Job
from support import functions as host
from support.rq_rig import Rig, make_call, poll
from support.workers import eventually, running

SIMPLE = ("-w", "rq.SimpleWorker")


def test_the_same_job_submitted_again_runs_once(rig, listening, tmp_path):
    """Again while it waits, while it runs, and when it has ended; also by another process."""
    path = str(tmp_path / "notes")
    first, second = rig.executor(listening(*SIMPLE)), rig.executor(listening(*SIMPLE))
    calls = [make_call(host.note, path, str(number)) for number in range(20)]
    for executor in (first, second, first):
        assert [answer.job_id for answer in executor.submit(calls)] == [call.job_id for call in calls]
    poll(first, calls)
    second.submit(calls)
    last = make_call(host.note, path, "last")
    second.submit([last])
    poll(second, [last])
    noted = Path(path).read_text().split()
    assert sorted(noted) == sorted([*map(str, range(20)), "last"])


def test_find_tells_jobs_that_arrived_from_those_that_did_not(rig, listening):
    executor = rig.executor("nobody")
    there, absent = make_call(host.add, 1, 2), make_call(host.add, 1, 2)
    executor.submit([there])
    found = executor.find([Job(there.job_id), Job(absent.job_id)])
    assert found == {there.job_id: "known", absent.job_id: "absent"}


def test_a_job_holds_texts_and_a_number_only(rig):
    """Nothing of the user's is pickled, whatever RQ's serializer is."""
    executor = rig.executor("nobody")
    call = make_call(host.identity, {1, 2})
    executor.submit([call])
    job = rig.job(call.job_id)
    assert job.func_name == "durable_monty_rq.remote.run"
    assert {type(argument) for argument in job.args} == {str, float}
    assert job.args[:3] == [rig.stream, call.job_id, call.envelope.decode()] or job.args[:3] == (
        rig.stream,
        call.job_id,
        call.envelope.decode(),
    )
    assert job.kwargs == {}


# Where


def test_functions_go_to_the_queues_that_the_configuration_or_they_themselves_name(valkey, tmp_path):
    tables = {
        "executor": "rq",
        "executors": {"rq": {"redis_url": valkey.url, "queue": "usual", "key_prefix": uuid.uuid4().hex}},
        "function": {"support.functions.identity": {"queue": "special"}},
    }
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), Config.model_validate(tables)) as service:
        code = "from asyncio import gather\nawait gather(add(1, 2), identity(1))"
        execution_id = service.start_execution(code, [host.add, host.identity])
        rig = Rig(valkey.url, service)
        with running(Worker(service)):
            for queue in ("usual", "special"):
                eventually(lambda queue=queue: rig.connection.llen(f"rq:queue:{queue}") == 1)
        service.cancel(execution_id)
        rig.connection.delete("rq:queue:usual", "rq:queue:special")
        rig.close()


def test_a_call_with_a_queue_of_its_own_runs_there(rig, listening):
    executor = rig.executor("nobody")
    call = make_call(host.add, 1, 2, queue=listening(*SIMPLE))
    executor.submit([call])
    assert remote.read_reply(poll(executor, [call])[call.job_id].reply).value == 3


@pytest.mark.parametrize("prefixes", [("shop", "office"), ("a:b", "a_b"), ("durable-monty", "other")])
def test_two_installations_on_one_redis_do_not_meet(valkey, listening, tmp_path, prefixes):
    """The same execution ids, the same queue, the same workers: each gets what it has asked for."""
    prefixes = [prefix if prefix == "durable-monty" else f"{prefix}{tmp_path.name[-6:]}" for prefix in prefixes]
    name = f"same-{uuid.uuid4().hex[:6]}"
    services = [OrchestratorService(init_db(f"sqlite:///{tmp_path}/{n}.db"), Config()) for n in (1, 2)]
    rigs = [Rig(valkey.url, service) for service in services]
    executors = [
        rig.executor(listening(*SIMPLE), key_prefix=prefix, result_stream=None)
        for rig, prefix in zip(rigs, prefixes, strict=True)
    ]
    code = "from asyncio import gather\nawait gather(*[identity(f'{n}-{i}') for i in range(20)])"
    for number, service in enumerate(services):
        service.start_execution(code, [host.identity], {"n": number}, execution_id=name)
    workers = [Worker(service, executor) for service, executor in zip(services, executors, strict=True)]
    with running(*workers):
        for number, service in enumerate(services):
            assert service.wait(name, 30)["output"] == [f"{number}-{item}" for item in range(20)]
    for rig, executor, service in zip(rigs, executors, services, strict=True):
        assert rig.connection.xlen(executor.settings.stream) == 0
        rig.close()
        service.close()


def test_the_default_prefix_leaves_job_ids_as_they_are(rig):
    executor = rig.executor("nobody")
    call = make_call(host.add, 1, 2)
    executor.submit([call])
    assert RQJob.exists(call.job_id, connection=rig.connection)


# How much at once


def test_a_wide_fan_out_puts_no_more_jobs_into_redis_than_asked_for(rig, listening):
    executor = rig.executor(listening(*SIMPLE), max_in_flight=10)
    most = 0

    def count(step):
        nonlocal most
        most = max(most, rig.connection.llen(f"rq:queue:{listening(*SIMPLE)}"))

    code = "from asyncio import gather\nsum(await gather(*[add(i, 1) for i in range(200)]))"
    execution_id = rig.service.start_execution(code, [host.add])
    Worker(rig.service, executor, on_step=count).run(until_complete=True)
    assert rig.service.get_result(execution_id) == sum(range(1, 201))
    assert 0 < most <= 10


def test_the_rest_of_a_fan_out_waits_in_the_database(rig):
    """Nobody serves the queue: 1,000 jobs are there by default, however many calls there are."""
    executor = rig.executor("nobody-serves")
    code = "from asyncio import gather\nsum(await gather(*[add(i, 1) for i in range(5000)]))"
    execution_id = rig.service.start_execution(code, [host.add])
    with running(Worker(rig.service, executor)):
        eventually(lambda: rig.connection.llen("rq:queue:nobody-serves") == 1000)
    rows = rig.service.runtime.store.calls(execution_id)
    assert sum(row.status == "pending" for row in rows) == 4000
    assert rig.connection.llen("rq:queue:nobody-serves") == 1000, "an orderly stop leaves them there"
    rig.connection.delete("rq:queue:nobody-serves")


# Taking out


def test_a_queued_job_that_is_cancelled_never_runs(rig, listening, tmp_path):
    begun, release, path = tmp_path / "begun", tmp_path / "release", tmp_path / "notes"
    executor = rig.executor(listening(*SIMPLE))
    blocker = make_call(host.hold, str(begun), str(release))
    queued = make_call(host.note, str(path), "ran")
    executor.submit([blocker, queued])
    eventually(begun.exists)
    assert executor.cancel([Job(queued.job_id)], force=False) == {queued.job_id: True}
    assert executor.cancel([Job(queued.job_id)], force=True) == {queued.job_id: True}, "again"
    release.touch()
    poll(executor, [blocker])
    marker = make_call(host.add, 1, 2)
    executor.submit([marker])
    poll(executor, [marker])
    assert not path.exists()


def test_a_running_job_is_stopped_when_its_execution_is_cancelled(rig, listening, tmp_path):
    begun = tmp_path / "begun"
    inputs = {"begun": str(begun), "release": str(tmp_path / "never")}
    execution_id = rig.service.start_execution("await hold(begun, release)", [host.hold], inputs)
    with running(Worker(rig.service, rig.executor(listening()))):
        eventually(begun.exists)
        rig.service.cancel(execution_id)
        assert rig.service.wait(execution_id, 30)["status"] == "cancelled"
        eventually(lambda: rig.job(f"{execution_id}-0-1").get_status() == "stopped")


def test_a_simple_worker_goes_on_with_a_cancelled_job_and_its_late_reply_is_dropped(rig, listening, tmp_path):
    begun, release = tmp_path / "begun", tmp_path / "release"
    executor = rig.executor(listening(*SIMPLE))
    inputs = {"begun": str(begun), "release": str(release)}
    execution_id = rig.service.start_execution("await hold(begun, release)", [host.hold], inputs)
    with running(Worker(rig.service, executor)):
        eventually(begun.exists)
        rig.service.cancel(execution_id)
        assert rig.service.wait(execution_id, 30)["status"] == "cancelled"
        release.touch()
        eventually(lambda: rig.job(f"{execution_id}-0-1").get_status() == "finished")
        # It is read with the replies of other jobs at the latest.
        other = rig.service.start_execution("await add(1, 2)", [host.add])
        assert rig.service.wait(other, 30)["output"] == 3
        eventually(lambda: rig.connection.xlen(rig.stream) == 0)
    assert rig.service.get_execution(execution_id)["status"] == "cancelled"


def test_stats_are_figures(rig):
    executor = rig.executor(f"stats-{uuid.uuid4().hex[:6]}")
    call = make_call(host.add, 1, 2)
    executor.submit([call])
    assert executor.stats() == {"accepted": 1, "queued": 1, "replies": 0}

"""How calls end on stock RQ workers of every class and with both serializers."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest
from rq.command import send_stop_job_command

from durable_monty import Worker, remote
from durable_monty.errors import ExecutionFailed
from support import functions as host
from support.rq_rig import make_call, poll
from support.workers import eventually, running

CAUGHT = "try:\n    r = await {call}\nexcept {error} as e:\n    r = str(e)\nr"
SIMPLE = ("-w", "rq.SimpleWorker")
KINDS = {
    "fork": ((), "default"),
    "simple": (SIMPLE, "default"),
    "spawn": (("-w", "rq.SpawnWorker"), "default"),
    "json": (("-S", "json"), "json"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stock_worker_of_any_class_gives_values_and_failures(rig, listening, kind):
    options, serializer = KINDS[kind]
    code = (
        "from asyncio import gather\n"
        "a = await gather(add(1, 2), nap(0, 7), identity({'t': (1, b'x')}))\n"
        "try:\n    await fail('KeyError', 'k')\nexcept KeyError as e:\n    caught = str(e)\n[*a, caught]"
    )
    executor = rig.executor(listening(*options), serializer=serializer)
    functions = [host.add, host.nap, host.identity, host.fail]
    assert rig.result(executor, code, functions) == [3, 7, {"t": (1, b"x")}, "'k'"]
    assert rig.connection.xlen(rig.stream) == 0, "every reply was acknowledged and dropped"


def test_an_exception_that_is_not_caught_fails_the_execution_with_the_remote_traceback(rig, listening):
    execution_id = rig.run(rig.executor(listening(*SIMPLE)), "await out_of_stock()", [host.out_of_stock])
    with pytest.raises(ExecutionFailed, match="no more apples") as raised:
        rig.service.get_result(execution_id)
    assert "raise OutOfStock" in str(raised.value)


def test_a_result_that_cannot_be_carried_names_the_place_in_it(rig, listening):
    code = CAUGHT.format(call="unencodable()", error="RuntimeError")
    found = rig.result(rig.executor(listening(*SIMPLE)), code, [host.unencodable])
    assert found.startswith("undecodable: ")
    assert "result['a'][0]" in found


def test_a_function_that_the_remote_side_lacks_is_refused_by_name(rig, listening):
    executor = rig.executor(listening(*SIMPLE))
    call = make_call(host.add, 1, 2)
    elsewhere = remote.make_envelope("support.elsewhere.missing", job_id=call.job_id)
    executor.submit([dataclasses.replace(call, envelope=elsewhere)])
    failure = remote.read_reply(poll(executor, [call])[call.job_id].reply).failure
    assert failure.kind == "refused"
    assert "support.elsewhere" in failure.message


def test_a_function_past_its_timeout_fails_as_a_timeout(rig, listening):
    code = CAUGHT.format(call="too_slow()", error="TimeoutError")
    assert "1 seconds" in rig.result(rig.executor(listening()), code, [host.too_slow])


def test_the_executors_own_timeout_holds_for_functions_that_have_none(rig, listening):
    code = CAUGHT.format(call="sleep(30)", error="TimeoutError")
    found = rig.result(rig.executor(listening(), job_timeout_seconds=0.5), code, [host.sleep])
    assert "1 seconds" in found


@pytest.mark.parametrize(("serializer", "options"), [("json", ()), ("default", ("-S", "json"))])
def test_a_worker_with_the_other_serializer_gives_a_failure_that_names_the_switch(rig, listening, serializer, options):
    queue = listening(*options)
    code = CAUGHT.format(call="add(1, 2)", error="RuntimeError")
    found = rig.result(rig.executor(queue, serializer=serializer), code, [host.add])
    switch = "rq worker -S json" if serializer == "json" else "rq worker"
    assert found.startswith("refused: ")
    assert f"start it as `{switch} {queue}`" in found


@pytest.fixture(scope="module")
def without_our_package(tmp_path_factory):
    """The command of `rq` in an environment that has all that RQ needs, and nothing of ours."""
    site = tmp_path_factory.mktemp("bare")
    for path in map(Path, sys.path):
        if path.name == "site-packages":
            for item in path.iterdir():
                if "durable" not in item.name and item.suffix != ".pth" and not (site / item.name).exists():
                    (site / item.name).symlink_to(item)
    code = "import sys; sys.path.append(sys.argv.pop(1)); from rq.cli import main; main()"
    return [sys.executable, "-S", "-c", code, str(site)]


def test_a_worker_without_our_package_gives_a_failure_that_names_queue_and_package(
    rig, valkey, start_rq_worker, without_our_package
):
    start_rq_worker(valkey.url, "bare", program=without_our_package, environment={"PYTHONPATH": ""})
    code = CAUGHT.format(call="add(1, 2)", error="RuntimeError")
    executor = rig.executor("bare")
    found = rig.result(executor, code, [host.add])
    assert found.startswith("refused: the worker of queue 'bare' has no durable_monty_rq")
    assert "pip install durable-monty-rq" in found
    errors = [finding.message for finding in executor.check() if finding.level == "error"]
    assert len(errors) == 1
    assert "'bare'" in errors[0]
    assert "pip install durable-monty-rq" in errors[0]


def test_a_job_whose_process_is_killed_is_lost_and_runs_again_as_the_next_attempt(rig, listening, tmp_path):
    """The kernel kills a work horse that takes too much memory with the same signal."""
    path = tmp_path / "notes"
    executor = rig.executor(listening())
    assert rig.result(executor, "await kill_itself_once(path)", [host.kill_itself_once], {"path": str(path)}) == 2
    assert path.read_text().split() == ["1", "2"]


def test_what_rq_says_of_a_killed_work_horse_is_in_the_failure(rig, listening):
    executor = rig.executor(listening())
    call = make_call(host.kill_itself)
    executor.submit([call])
    failure = poll(executor, [call])[call.job_id].failure
    assert failure.kind == "lost"
    assert "signal 9" in failure.message


def test_a_job_that_is_stopped_in_rq_is_cancelled(rig, listening, tmp_path):
    begun = tmp_path / "begun"
    executor = rig.executor(listening())
    call = make_call(host.hold, str(begun), str(tmp_path / "never"))
    executor.submit([call])
    eventually(begun.exists)
    send_stop_job_command(rig.connection, call.job_id)
    assert poll(executor, [call])[call.job_id].failure.kind == "cancelled"


KEY = b"a key of sixteen or more bytes"


@pytest.fixture(scope="module")
def signed_worker(valkey, start_rq_worker):
    return start_rq_worker(valkey.url, "signed", *SIMPLE, environment={"DURABLE_MONTY_SIGNING_KEY": KEY.decode()})


def test_a_forged_envelope_is_refused_and_logged_and_what_it_asks_for_does_not_run(rig, signed_worker, tmp_path):
    """Whoever can write to Redis cannot run code: an envelope without a signature, and one with another key's."""
    path = tmp_path / "notes"
    executor = rig.executor("signed")
    forged = [make_call(host.note, str(path), "forged", key=key) for key in (None, b"another key of sixteen")]
    genuine = make_call(host.note, str(path), "genuine", key=KEY)
    executor.submit([*forged, genuine])
    outcomes = poll(executor, [*forged, genuine])
    remote.configure(signing_key=KEY)
    for call in forged:
        failure = remote.read_reply(outcomes[call.job_id].reply).failure
        assert (failure.kind, failure.type) == ("refused", "SignatureMismatch")
    assert remote.read_reply(outcomes[genuine.job_id].reply).value == "genuine"
    assert path.read_text().split() == ["genuine"]
    assert signed_worker.log.read_text().count("envelope refused: its signature is missing or wrong") == 2


def test_a_forged_reply_is_refused_and_logged(valkey, signed_worker, tmp_path, caplog):
    from durable_monty import OrchestratorService, init_db
    from durable_monty.config import Config
    from support.rq_rig import Rig

    config = Config.model_validate({"security": {"signing_key": KEY.decode()}})
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/signed.db"), config) as service:
        rig = Rig(valkey.url, service)
        code = CAUGHT.format(call="hold(begun, release)", error="RuntimeError")
        begun, release = tmp_path / "begun", tmp_path / "release"
        inputs = {"begun": str(begun), "release": str(release)}
        execution_id = service.start_execution(code, [host.hold], inputs)
        with running(Worker(service, rig.executor("signed"))):
            eventually(begun.exists)
            job_id = f"{execution_id}-0-1"
            forged = b'{"body":{"v":1,"job_id":"%s","value":666}}' % job_id.encode()
            rig.connection.xadd(rig.stream, {"job": job_id, "reply": forged})
            found = service.wait(execution_id, 30)["output"]
            release.touch()
        assert found.startswith("refused: ")
        assert "reply refused: its signature is missing or wrong" in caplog.text
        assert service.get_result(rig.run(rig.executor("signed"), "await add(1, 2)", [host.add])) == 3
        rig.close()


def test_a_class_for_scripts_as_in_the_readme(rig, listening):
    from redis import Redis

    from durable_monty import RQExecutor

    assert RQExecutor(queue_name="my-queue").settings.queue == "my-queue"
    own = Redis.from_url(rig.url)
    executor = RQExecutor(own, listening(*SIMPLE), result_stream=rig.stream)
    assert rig.result(executor, "await add(1, 2)", [host.add]) == 3
    assert own.ping(), "a client that was handed over is left open"
    own.close()


def test_a_client_that_decodes_responses_is_refused_with_a_reason(rig):
    from redis import Redis

    from durable_monty import ConfigError, RQExecutor

    with pytest.raises(ConfigError, match="decode_responses"):
        RQExecutor(Redis.from_url(rig.url, decode_responses=True))


def test_rqs_log_holds_no_argument(rig, listening, valkey, start_rq_worker):
    """The description of a job, which RQ logs, would hold its arguments."""
    worker = start_rq_worker(valkey.url, "logged", *SIMPLE, "--logging_level", "DEBUG")
    secret = f"secret-{os.getpid()}"
    assert rig.result(rig.executor("logged"), "await identity(value)", [host.identity], {"value": secret}) == secret
    logged = worker.log.read_text()
    assert "support.functions.identity" in logged
    assert secret not in logged

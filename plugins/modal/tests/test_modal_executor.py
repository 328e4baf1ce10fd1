"""The executor's hooks, with the real `modal` client against a control plane on this machine and real processes."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from grpclib import Status

from durable_monty import Worker, remote
from durable_monty.hookspecs import ExecutorContext
from durable_monty.models import Accepted, Call, Job, Refused
from durable_monty_modal import ModalExecutor
from durable_monty_modal.connection import Unreachable
from durable_monty_modal.sizes import name_of, size_of
from support import functions as host
from support.modal_server import TOKEN_SECRET, serving
from support.workers import eventually, running

HOST = "support.functions"


@pytest.fixture(scope="module")
def shared_server():
    """Containers stay warm from test to test."""
    with serving() as running:
        yield running


@pytest.fixture
def server(shared_server, monkeypatch):
    point_to(monkeypatch, shared_server)
    return shared_server


@pytest.fixture
def own_server(monkeypatch):
    """For what breaks servers, or counts."""
    with serving() as running:
        point_to(monkeypatch, running)
        yield running


def point_to(monkeypatch, server):
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def executor(request):
    return opened(request)


def opened(request, **settings):
    made = ModalExecutor(**settings)
    made.start(ExecutorContext("modal", lambda outcomes: None, logging.getLogger("test.modal")))
    request.addfinalizer(lambda: made.stop(0))
    return made


def call(function, *args, number=0, timeout_seconds=None, resources=None):
    job_id = f"e-{number}-1"
    path = function if "." in function else f"{HOST}.{function}"
    envelope = remote.make_envelope(path, args, job_id=job_id)
    return Call(
        job_id, "e", number, 1, path, "[[],{}]", envelope, timeout_seconds=timeout_seconds, options=resources or {}
    )


def submitted(executor, *calls):
    answers = {answer.job_id: answer for answer in executor.submit(calls)}
    assert all(isinstance(answer, Accepted) for answer in answers.values()), answers
    return [Job(item.job_id, answers[item.job_id].token) for item in calls]


def outcomes(executor, jobs):
    """By job id, once all of them have ended."""
    found = {}

    def have_ended():
        left = [job for job in jobs if job.job_id not in found]
        found.update((outcome.job_id, outcome) for outcome in executor.poll(left, 0))
        return len(found) == len(jobs)

    eventually(have_ended)
    return found


def outcome_of(executor, *calls):
    (outcome,) = outcomes(executor, submitted(executor, *calls)).values()
    return outcome


def value_of(executor, *calls):
    return remote.read_reply(outcome_of(executor, *calls).reply).value


def failure_of(executor, *calls):
    outcome = outcome_of(executor, *calls)
    return outcome.failure or remote.read_reply(outcome.reply).failure


def test_a_call_gives_its_value(server, executor):
    assert value_of(executor, call("add", 2, 3)) == 5


def test_an_async_function_is_run_to_its_end(server, executor):
    assert value_of(executor, call("nap", 0.01, 7)) == 7


def test_what_a_function_raises_comes_back_with_its_traceback(server, executor):
    failure = failure_of(executor, call("out_of_stock"))
    assert (failure.kind, failure.type, failure.message) == ("user", "OutOfStock", "no more apples")
    assert "in out_of_stock" in failure.traceback
    assert failure.bases[0] == "LookupError"


def test_a_timeout_error_of_the_user_is_not_taken_for_a_call_that_is_not_ready(server, executor):
    failure = failure_of(executor, call("modal_functions.time_out"))
    assert (failure.kind, failure.type, failure.message) == ("user", "TimeoutError", "the shop is closed")


@pytest.mark.parametrize("target", ["modal_functions:foreign_time_out", "modal_functions:foreign_value"])
def test_a_function_that_is_none_of_ours_is_a_failure_and_not_silence(server, request, target):
    """Somebody has named a function of another app."""
    server.deploy("another", "run", target=target)
    failure = failure_of(opened(request, app="another"), call("add", 1, 2))
    expected = {"foreign_time_out": ("user", "no time"), "foreign_value": ("undecodable", "returned a int")}
    kind, text = expected[target.partition(":")[2]]
    assert failure.kind == kind
    assert text in failure.message


@pytest.mark.parametrize("size", [1, 8 * 1024 - 1, 8 * 1024 + 1, 5_000_000])
def test_payloads_of_every_size_go_there_and_back(server, executor, size):
    """Above 8 KiB arguments, and above 2 MiB results, travel as blobs."""
    assert value_of(executor, call("identity", "x" * size)) == "x" * size


def test_two_hundred_calls_run_at_once(server, executor):
    calls = [call("add", number, 1, number=number) for number in range(200)]
    found = outcomes(executor, submitted(executor, *calls))
    values = [remote.read_reply(found[item.job_id].reply).value for item in calls]
    assert values == list(range(1, 201))


def test_a_function_that_runs_into_its_timeout_has_timed_out(server, executor):
    """The timeout is a property of the deployed function, which the executor picks by it."""
    server.deploy(name=name_of("run", size_of(None, 1)), timeout_seconds=0.3)
    failure = failure_of(executor, call("sleep", 30, timeout_seconds=0.9))
    assert (failure.kind, failure.type) == ("timeout", "TimeoutError")
    assert "timeout" in failure.message


def test_a_function_with_resources_runs_on_the_modal_function_for_them(server, executor):
    own = server.deploy(name=name_of("run", {"gpu": "A10G", "memory": 4096}))
    job = submitted(executor, call("add", 1, 2, resources={"memory": 4096, "gpu": "A10G"}))
    assert remote.read_reply(outcomes(executor, job)["e-0-1"].reply).value == 3
    assert server.plane.calls[job[0].token].function is own


def test_a_container_that_is_killed_has_lost_its_call(server, executor):
    jobs = submitted(executor, call("sleep", 30))
    eventually(lambda: server.plane.calls[jobs[0].token].container)
    server.plane.calls[jobs[0].token].container.process.kill()
    assert outcomes(executor, jobs)["e-0-1"].failure.kind == "lost"


def test_a_function_that_ends_its_process_has_lost_its_call(server, executor):
    failure = failure_of(executor, call("exit_process"))
    assert failure.kind == "lost"
    assert "exit code 3" in failure.message


def test_a_running_call_is_cancelled(server, executor):
    jobs = submitted(executor, call("sleep", 30))
    item = server.plane.calls[jobs[0].token]
    eventually(lambda: item.container)
    assert executor.cancel(jobs, force=True) == {"e-0-1": True}
    assert item.container is None or item.container.process.returncode is not None
    assert executor.cancel(jobs, force=True) == {"e-0-1": True}, "twice is fine"
    assert outcomes(executor, jobs)["e-0-1"].failure.kind == "cancelled"


def test_a_queued_call_is_cancelled_and_never_runs(server, request, tmp_path):
    server.deploy("narrow", "run", max_containers=1)
    executor = opened(request, app="narrow")
    release = tmp_path / "release"
    first, second = submitted(
        executor,
        call("hold", str(tmp_path / "begun"), str(release), number=0),
        call("note", str(tmp_path / "ran"), "it ran", number=1),
    )
    eventually((tmp_path / "begun").exists)
    executor.cancel([second], force=True)
    release.touch()
    found = outcomes(executor, [first, second])
    assert found["e-1-1"].failure.kind == "cancelled"
    assert not (tmp_path / "ran").exists()


def test_a_result_that_has_expired_is_lost_and_says_why(own_server, executor):
    jobs = submitted(executor, call("add", 1, 2))
    eventually(lambda: own_server.plane.calls[jobs[0].token].result is not None)
    own_server.expire()
    failure = outcomes(executor, jobs)["e-0-1"].failure
    assert (failure.kind, "7 days" in failure.message) == ("lost", True)


def test_a_call_that_modal_does_not_know_is_lost(server, executor):
    failure = outcomes(executor, [Job("e-0-1", "fc-00000000000000000000000000")])["e-0-1"].failure
    assert (failure.kind, "7 days" in failure.message) == ("lost", True)


def test_one_lost_call_does_not_spoil_a_batch(server, executor):
    jobs = [*submitted(executor, call("add", 1, 2)), Job("e-1-1", "fc-00000000000000000000000000")]
    found = outcomes(executor, jobs)
    assert remote.read_reply(found["e-0-1"].reply).value == 3
    assert found["e-1-1"].failure.kind == "lost"


def test_calls_are_found_again_by_their_tokens(server, request):
    """What another worker knows is what the database holds."""
    first = opened(request)
    jobs = submitted(first, *[call("add", number, 1, number=number) for number in range(3)])
    first.stop(0)
    found = outcomes(opened(request), jobs)
    assert [remote.read_reply(found[job.job_id].reply).value for job in jobs] == [1, 2, 3]


def test_a_lost_reply_does_not_start_a_call_twice(own_server, executor):
    own_server.plane.lost_replies = 2
    assert value_of(executor, call("add", 1, 2)) == 3
    assert own_server.plane.started == 1
    assert own_server.plane.rpcs["FunctionMap"] == 3


@pytest.mark.parametrize("rpc", ["FunctionMap", "FunctionGetOutputs", "FunctionGet"])
def test_a_server_that_is_unavailable_for_a_moment_is_asked_again(own_server, executor, rpc):
    own_server.plane.faults[rpc] += [Status.UNAVAILABLE] * 2
    assert value_of(executor, call("add", 1, 2)) == 3
    assert own_server.plane.started == 1


def test_a_call_whose_every_reply_was_lost_is_ambiguous(own_server, executor):
    """It has been started, and nobody knows its id."""
    own_server.plane.lost_replies = 4
    failure = failure_of(executor, call("add", 1, 2))
    assert failure.kind == "ambiguous"
    assert "idempotent=True" in failure.message
    assert own_server.plane.started == 1


def test_polling_a_server_that_is_unavailable_is_no_news_and_loses_nothing(own_server, executor):
    jobs = submitted(executor, call("add", 1, 2))
    own_server.plane.faults["FunctionGetOutputs"] += [Status.UNAVAILABLE] * 4
    with pytest.raises(Unreachable, match="does not answer"):
        executor.poll(jobs, 0)
    assert remote.read_reply(outcomes(executor, jobs)["e-0-1"].reply).value == 3


def test_a_server_that_is_away_does_not_keep_the_worker_waiting(own_server, executor):
    """`submit` is called in the worker's main thread; the calls stay in the database."""
    submitted(executor, call("add", 1, 2))
    own_server.stop()
    own_server.plane.rpcs.clear()
    eventually(lambda: refuses(executor, call("add", 1, 2, number=1)))
    own_server.start()
    eventually(lambda: not refuses(executor, call("add", 1, 2, number=2)))


def test_a_server_that_takes_requests_and_answers_none_is_waited_for_once(own_server, executor, monkeypatch):
    """One hand-over of many calls is many batches; each of them waiting would cost the worker its lease."""
    monkeypatch.setattr("durable_monty_modal.executor.CONNECT_SECONDS", 0.2)
    own_server.plane.is_mute = True
    for number in range(3):
        with pytest.raises(Unreachable):
            executor.submit([call("add", 1, 2, number=number)])
    eventually(lambda: own_server.plane.rpcs["ClientHello"])
    assert own_server.plane.rpcs["ClientHello"] == 1
    assert own_server.plane.started == 0


def test_an_executor_is_used_again_after_it_was_stopped(server, executor):
    """By the next worker of a script."""
    assert value_of(executor, call("add", 1, 2)) == 3
    executor.stop(0)
    executor.stop(0)
    assert value_of(executor, call("add", 1, 3)) == 4


def refuses(executor, *calls):
    try:
        (answer,) = executor.submit(calls)
    except Unreachable:
        return True
    return isinstance(answer, Refused)


def test_stopping_does_not_wait_for_a_poll_that_is_stuck(own_server, executor):
    """A server that takes a request and never answers it."""
    jobs = submitted(executor, call("sleep", 30))
    own_server.plane.is_mute = True
    polled = []
    thread = threading.Thread(target=lambda: polled.append(executor.poll(jobs, 0)))
    before = own_server.plane.rpcs["FunctionGetOutputs"]
    thread.start()
    eventually(lambda: own_server.plane.rpcs["FunctionGetOutputs"] > before)
    executor.stop(0)
    thread.join(20)
    assert not thread.is_alive()
    assert polled == [[]]


def test_a_call_that_takes_long_to_start_goes_on_being_started(own_server, executor, monkeypatch):
    """The worker goes on; the call is found although its token came after `submit`."""
    monkeypatch.setattr("durable_monty_modal.executor._SPAWN_SECONDS", 0.05)
    own_server.plane.delays["FunctionMap"] = 0.5
    (answer,) = executor.submit([call("add", 1, 2)])
    assert answer == Accepted("e-0-1")
    assert executor.stats()["starting"] == 1
    assert remote.read_reply(outcomes(executor, [Job("e-0-1")])["e-0-1"].reply).value == 3
    executor.complete([Job("e-0-1")])
    assert executor.stats() == {"accepted": 1, "starting": 0}


def test_a_call_that_is_cancelled_while_it_is_being_started_is_cancelled_then(own_server, executor, monkeypatch):
    monkeypatch.setattr("durable_monty_modal.executor._SPAWN_SECONDS", 0.05)
    own_server.plane.delays["FunctionMap"] = 0.5
    executor.submit([call("sleep", 30)])
    assert executor.cancel([Job("e-0-1")], force=True) == {"e-0-1": False}
    eventually(lambda: own_server.plane.rpcs["FunctionCallCancel"])
    eventually(lambda: [item for item in own_server.plane.calls.values() if item.result is not None])


def test_a_call_whose_function_is_not_deployed_waits_and_says_what_to_do(server, request, caplog):
    executor = opened(request, app="nowhere", missing_retry_seconds=7)
    (answer,) = executor.submit([call("add", 1, 2, resources={"gpu": "H100"})])
    assert isinstance(answer, Refused)
    assert answer.retry_after_seconds == 7
    for words in ("'nowhere'", "{'gpu': 'H100'}", "support.functions.add", "modal deploy"):
        assert words in answer.reason
    assert answer.reason in caplog.text


def test_a_token_that_is_not_accepted_leaves_calls_pending_and_says_what_to_do(server, executor, monkeypatch):
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-wrong-secret")
    with pytest.raises(PermissionError, match=r"MODAL_TOKEN_SECRET.*modal token new") as caught:
        executor.submit([call("add", 1, 2)])
    assert "as-wrong-secret" not in str(caught.value)


def test_the_token_may_stand_in_other_variables(server, request, monkeypatch):
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.setenv(f"OTHER_{name}", server.variables[name])
        monkeypatch.delenv(name)
    names = {"token_id_env": "OTHER_MODAL_TOKEN_ID", "token_secret_env": "OTHER_MODAL_TOKEN_SECRET"}
    assert value_of(opened(request, **names), call("add", 1, 2)) == 3


def test_a_variable_that_is_not_set_is_named(server, request):
    executor = opened(request, token_id_env="NO_SUCH_ID", token_secret_env="NO_SUCH_SECRET")
    with pytest.raises(ValueError, match="NO_SUCH_ID and NO_SUCH_SECRET is not set"):
        executor.submit([call("add", 1, 2)])


def test_the_token_is_in_no_repr_and_no_log(own_server, request, caplog):
    for name in ("durable_monty", "durable_monty_modal", "test.modal", "modal-client", "grpclib", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    executor = opened(request)
    own_server.plane.faults["FunctionMap"] += [Status.UNAVAILABLE]
    value_of(executor, call("add", 1, 2))
    shown = repr(executor.settings) + repr(executor.__dict__) + repr(executor._connection.__dict__) + caplog.text
    assert TOKEN_SECRET not in shown


def test_every_setting_is_described():
    fields = ModalExecutor.Settings.model_fields
    assert not [name for name, field in fields.items() if not field.description]


# The pre-flight check


def levels(findings):
    return [finding.level for finding in findings]


def test_a_check_finds_everything_in_order(server):
    findings = ModalExecutor(check_functions=[f"{HOST}.add"]).check()
    assert levels(findings) == ["info"] * 3
    assert "durable-monty-core 0.2.0" in findings[-1].message


def test_a_check_finds_a_bad_token(server, monkeypatch):
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-wrong-secret")
    (finding,) = ModalExecutor().check()
    assert (finding.level, "does not accept the token" in finding.message) == ("error", True)
    assert "modal token new" in finding.remedy


def test_a_check_finds_a_missing_variable(server):
    (finding,) = ModalExecutor(token_id_env="NO_SUCH_ID").check()
    assert (finding.level, "NO_SUCH_ID is not set" in finding.message) == ("error", True)


def test_a_check_finds_a_missing_function(server):
    *_, finding = ModalExecutor("nowhere").check()
    assert (finding.level, "'nowhere' has no function 'run'" in finding.message) == ("error", True)
    assert "modal deploy" in finding.remedy


def test_a_check_finds_a_server_that_does_not_answer(own_server, monkeypatch):
    monkeypatch.setattr("durable_monty_modal.checks._CONNECT_SECONDS", 0.3)
    own_server.stop()
    (finding,) = ModalExecutor().check()
    assert (finding.level, own_server.variables["MODAL_SERVER_URL"] in finding.message) == ("error", True)
    assert "MODAL_SERVER_URL" in finding.remedy


def test_a_check_finds_functions_that_a_container_does_not_have(server):
    *_, finding = ModalExecutor(check_functions=[f"{HOST}.add", "no_such.thing"]).check()
    assert (finding.level, "'no_such.thing'" in finding.message) == ("error", True)
    assert "build_app" in finding.remedy


def test_a_check_finds_another_version_at_the_other_side(server):
    server.deploy("old", "run", target="modal_functions:old_version")
    *_, finding = ModalExecutor("old").check()
    assert (finding.level, finding.message) == (
        "warning",
        "a container has durable-monty-core 0.1.9, this machine has 0.2.0",
    )
    assert "deploy the app again" in finding.remedy


def test_a_check_finds_a_function_that_is_none_of_ours(server):
    server.deploy("another", "run", target="modal_functions:foreign_value")
    *_, finding = ModalExecutor("another").check()
    assert (finding.level, "does not answer as one of ours" in finding.message) == ("error", True)


def test_a_check_starts_no_container_where_that_is_not_wanted(own_server):
    findings = ModalExecutor(check_starts_container=False).check()
    assert levels(findings) == ["info"] * 3
    assert own_server.plane.started == 0


# Time


@pytest.mark.thorough
def test_a_server_that_is_down_for_half_a_minute_costs_nothing_but_time(own_server, lite_service):
    """The worker goes on with what needs no Modal, and everything ends well when the server is back."""
    executor = ModalExecutor()
    code = "from asyncio import gather\nsum(await gather(*[add(i, 1) for i in range(20)]))"
    first = lite_service.start_execution(code, [host.add])
    with running(Worker(lite_service, executor, poll_interval=0.1)):
        lite_service.wait(first, 60)
        held = lite_service.start_execution("await sleep(0.2)", [host.sleep])
        eventually(lambda: own_server.plane.started == 21)
        own_server.stop()
        second = lite_service.start_execution(code, [host.add])
        napping = lite_service.start_execution("import asyncio\nawait asyncio.sleep(1)\n'awake'", [])
        assert lite_service.wait(napping, 20)["output"] == "awake"
        time.sleep(30)  # the half minute itself
        own_server.start()
        assert lite_service.wait(held, 60)["output"] == 0.2
        assert lite_service.wait(second, 60)["output"] == 210
    assert own_server.plane.started == 41, "nothing was started twice"

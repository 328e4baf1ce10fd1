"""What becomes of a call: real boto3, real awslambdaric, a local Lambda service between them."""

from __future__ import annotations

import json

import pytest

from durable_monty import remote
from durable_monty.models import Accepted, Job, Refused
from support.lambda_service import Fault
from support.workers import eventually


def failure(answer):
    return getattr(answer, "failure", None) or answer


def messages(sqs, queue_url):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return [int(attributes[name]) for name in names]


def test_a_call_runs_and_its_record_is_deleted_when_it_is_complete(deploy, runner, call, sqs, queue_url):
    deploy()
    runner.submit(call("support.functions.add", 2, 3, job_id="e-0-1"))
    outcome = runner.collect(completes=False)["e-0-1"]
    assert remote.read_reply(outcome.reply).value == 5
    assert messages(sqs, queue_url) == [0, 1], "it is kept until the outcome is durable"
    runner.executor.complete([runner.jobs["e-0-1"]])
    assert messages(sqs, queue_url) == [0, 0]
    runner.executor.complete([runner.jobs["e-0-1"], Job("never-0-1")])


def test_an_async_function_is_run_to_its_end(deploy, runner, call):
    deploy()
    assert runner.run(call("support.functions.nap", 0.01, 7)).value == 7


def test_what_the_function_raises_comes_with_its_traceback(deploy, runner, call):
    deploy()
    failed = failure(runner.run(call("support.functions.out_of_stock")))
    assert (failed.kind, failed.type, failed.message) == ("user", "OutOfStock", "no more apples")
    assert "LookupError" in failed.bases
    assert "in out_of_stock" in failed.traceback
    assert "durable_monty_lambda" not in failed.traceback


def test_a_function_that_is_not_registered_is_refused(deploy, runner, call):
    deploy()
    assert failure(runner.run(call("os.getcwd"))).kind == "refused"


def test_the_timeout_of_a_function_interrupts_it_and_shows_where(deploy, runner, call):
    deploy()
    failed = failure(runner.run(call("support.functions.sleep", 30, timeout_seconds=0.2)))
    assert (failed.kind, failed.type, failed.message) == ("timeout", "TimeoutError", "it ran longer than its 0.2 s")
    assert "time.sleep(seconds)" in failed.traceback
    assert runner.run(call("support.functions.add", 1, 1)).value == 2, "the sandbox is as good as new"


def test_the_timeout_of_lambda_is_a_timeout(deploy, runner, call):
    deploy(timeout=0.8)
    failed = failure(runner.run(call("support.functions.sleep", 30)))
    assert failed.kind == "timeout"
    assert "Task timed out after 0.80 seconds" in failed.message


def test_a_process_that_ends_itself_is_lost(deploy, runner, call):
    deploy()
    failed = failure(runner.run(call("support.functions.exit_process")))
    assert (failed.kind, failed.type) == ("lost", "Runtime.ExitError")
    assert "exit status 3" in failed.message


def test_a_sandbox_that_is_killed_is_lost_and_memory_is_suspected(deploy, runner, call):
    deployed = deploy()
    slow = call("support.functions.sleep", 30)
    runner.submit(slow)
    eventually(lambda: any(sandbox.kill() for sandbox in deployed.sandboxes))
    failed = failure(runner.outcome(slow))
    assert failed.kind == "lost"
    assert "is the function's memory too small?" in failed.message


def test_code_that_cannot_be_imported_is_refused_with_what_to_do(deploy, runner, call):
    deploy(handler="durable_monty_lambda_of_yesterday.handler")
    failed = failure(runner.run(call("support.functions.add", 1, 2)))
    assert (failed.kind, failed.type) == ("refused", "Runtime.ImportModuleError")
    assert "durable-monty lambda package" in failed.message


def test_another_handler_that_answers_something_else_is_named(deploy, runner, call, tmp_path):
    (tmp_path / "other.py").write_text("def handler(event, context):\n    return 42\n")
    deploy(path=str(tmp_path), handler="other.handler")
    failed = failure(runner.run(call("support.functions.add", 1, 2)))
    assert failed.kind == "undecodable"
    assert "its handler must be durable_monty_lambda.handler" in failed.message


def test_an_event_that_was_too_old_is_unavailable_and_never_ran(deploy, runner, call, invoke_config, tmp_path):
    deployed = deploy(concurrency=1)
    first = call("support.functions.sleep", 0.3)
    second = call("support.functions.note", str(tmp_path / "ran"), "ran")
    runner.submit(first)
    eventually(lambda: deployed.sandboxes[0]._current)
    invoke_config["MaximumEventAgeInSeconds"] = 0
    runner.submit(second)
    outcomes = runner.collect(2)
    assert outcomes[second.job_id].failure.kind == "unavailable"
    assert not (tmp_path / "ran").exists()


def test_an_event_that_was_dropped_is_lost_after_its_age(deploy, service, make_executor, run_with, call):
    deploy()
    runner = run_with(make_executor(lost_after_seconds=1.0))
    dropped = call("support.functions.add", 1, 2)
    service.faults.append(Fault.DROP)
    (accepted,) = runner.submit(dropped)
    assert isinstance(accepted, Accepted)
    failed = failure(runner.outcome(dropped))
    assert (failed.kind, failed.message) == ("lost", "no record of it came within 1 s")


def test_an_event_that_is_delivered_twice_gives_two_records_and_both_are_deleted(
    deploy, service, runner, call, sqs, queue_url, tmp_path
):
    deploy()
    twice = call("support.functions.note", str(tmp_path / "ledger"), "ran")
    service.faults.append(Fault.TWICE)
    runner.submit(twice)
    job = runner.jobs[twice.job_id]
    eventually(lambda: messages(sqs, queue_url)[0] == 2)
    seen = []
    eventually(lambda: seen.extend(runner.poll()) or len(seen) == 2)
    assert {outcome.job_id for outcome in seen} == {twice.job_id}
    assert (tmp_path / "ledger").read_text() == "ran\nran\n"
    runner.executor.complete([job])
    assert messages(sqs, queue_url) == [0, 0]


def test_a_record_that_nobody_completed_comes_again(deploy, make_executor, run_with, call):
    """The worker that read it died. Whoever reads it after the visibility timeout can delete it."""
    deploy()
    first = run_with(make_executor(visibility_timeout_seconds=1))
    first.submit(call("support.functions.add", 2, 3, job_id="e-0-1"))
    first.collect(completes=False)
    second = run_with(make_executor())
    second.jobs = first.jobs
    assert remote.read_reply(second.collect()["e-0-1"].reply).value == 5


def test_a_job_whose_record_waits_in_the_queue_is_not_lost_however_old_it_is(deploy, make_executor, run_with, call):
    """No worker ran for hours, and the last one had read the record before it died."""
    deploy()
    first = run_with(make_executor(visibility_timeout_seconds=2))
    first.submit(call("support.functions.add", 2, 3, job_id="e-0-1"))
    first.collect(completes=False)
    second = run_with(make_executor(visibility_timeout_seconds=2, lost_after_seconds=0.01))
    second.jobs = {
        "e-0-1": Job("e-0-1", "1000000000 old-and-done"),
        "e-1-1": Job("e-1-1", "1000000000 old-and-gone"),
    }
    outcomes = second.collect(2)
    assert remote.read_reply(outcomes["e-0-1"].reply).value == 5
    assert outcomes["e-1-1"].failure.kind == "lost"


def test_the_newest_receipt_of_a_record_deletes_it(deploy, make_executor, run_with, call, sqs, queue_url):
    deploy()
    runner = run_with(make_executor(visibility_timeout_seconds=1))
    runner.submit(call("support.functions.add", 2, 3, job_id="e-0-1"))
    runner.collect(completes=False)
    runner.collect(completes=False)
    assert runner.executor.stats()["unfinished_records"] == 1
    runner.executor.complete([Job("e-0-1")])
    assert messages(sqs, queue_url) == [0, 0]


def test_messages_that_are_not_ours_stay_and_are_told_once(
    deploy, make_executor, run_with, call, sqs, queue_url, caplog
):
    deploy()
    runner = run_with(make_executor(visibility_timeout_seconds=1))
    for body in (
        "hello",
        "{}",
        json.dumps({"requestPayload": {"job_id": "x"}, "requestContext": {"condition": "Success"}}),
        json.dumps({"requestPayload": {"job_id": "e-0-1"}, "requestContext": "Success", "responseContext": [1]}),
    ):
        sqs.send_message(QueueUrl=queue_url, MessageBody=body)
    assert runner.run(call("support.functions.add", 1, 1)).value == 2
    eventually(lambda: runner.poll(1) or len(caplog.records) >= 4)
    runner.poll(1)
    runner.poll(1)
    told = [record for record in caplog.records if "no record of ours" in record.message]
    assert len(told) == 4
    assert sum(messages(sqs, queue_url)) == 4


def test_throttled_calls_are_asked_again_when_lambda_says(deploy, service, runner, call):
    deploy()
    calls = [call("support.functions.add", n, 1) for n in range(4)]
    service.faults.extend([Fault.THROTTLE, Fault.THROTTLE])
    answers = runner.submit(*calls)
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert [answer.retry_after_seconds for answer in refused] == [0.2, 0.2]
    assert "Rate Exceeded" in refused[0].reason
    assert len(runner.collect(2)) == 2


def test_an_error_of_the_service_is_asked_again(deploy, service, runner, call):
    deploy()
    service.faults.append(Fault.ERROR)
    (refused,) = runner.submit(call("support.functions.add", 1, 1))
    assert refused.retry_after_seconds


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LOSE_REQUEST, Fault.ERROR, Fault.THROTTLE])
def test_botocore_never_invokes_twice_by_itself(deploy, service, runner, call, fault):
    deploy()
    service.faults.append(fault)
    runner.submit(call("support.functions.add", 1, 1))
    assert len([path for path in service.requests if "/invocations" in path]) == 1


def test_a_lost_answer_is_resubmitted_and_the_first_outcome_counts(deploy, service, runner, call):
    deploy()
    doubtful = call("support.functions.add", 2, 3)
    service.faults.append(Fault.LOSE_ANSWER)
    (refused,) = runner.submit(doubtful)
    assert refused.retry_after_seconds
    assert runner.run(doubtful).value == 5


def test_a_lost_answer_is_waited_for_where_nothing_may_run_twice(
    deploy, service, make_executor, run_with, call, tmp_path
):
    deploy()
    runner = run_with(make_executor(in_doubt="wait"))
    service.faults.append(Fault.LOSE_ANSWER)
    call_ = call("support.functions.note", str(tmp_path / "ledger"), "ran")
    (accepted,) = runner.submit(call_)
    assert isinstance(accepted, Accepted)
    assert runner.outcome(call_).value == "ran"
    assert (tmp_path / "ledger").read_text() == "ran\n"


def test_a_lost_request_is_lost_in_the_end_where_answers_are_waited_for(deploy, service, make_executor, run_with, call):
    deploy()
    runner = run_with(make_executor(in_doubt="wait", lost_after_seconds=1.0))
    service.faults.append(Fault.LOSE_REQUEST)
    call_ = call("support.functions.add", 1, 1)
    runner.submit(call_)
    failed = failure(runner.outcome(call_))
    assert failed.kind == "lost"
    assert "Lambda did not say that it took the event" in failed.message


def test_nothing_is_accepted_while_lambda_is_away(make_executor, run_with, call, service):
    runner = run_with(make_executor(endpoint_url="http://127.0.0.1:1"))
    with pytest.raises(Exception, match="Could not connect to the endpoint"):
        runner.submit(call("support.functions.add", 1, 1), call("support.functions.add", 1, 2))


def test_a_function_that_is_not_there_keeps_its_calls_waiting(runner, call):
    (refused,) = runner.submit(call("support.functions.add", 1, 1))
    assert refused.retry_after_seconds
    assert "Function not found" in refused.reason
    assert "durable-monty executors check" in refused.reason


def test_an_executor_that_was_restarted_gets_what_its_predecessor_started(deploy, make_executor, run_with, call):
    deploy()
    first = run_with(make_executor())
    calls = [call("support.functions.sleep", 0.3) for _ in range(4)]
    first.submit(*calls)
    first.executor.stop(0)
    second = run_with(make_executor())
    second.jobs = first.jobs
    assert set(second.collect(4)) == {item.job_id for item in calls}


def test_an_ordinary_call_cannot_be_cancelled_and_that_is_said(deploy, runner, call):
    deploy()
    slow = call("support.functions.sleep", 0.5)
    runner.submit(slow)
    assert runner.executor.cancel([runner.jobs[slow.job_id]], force=True) == {slow.job_id: False}
    assert not runner.executor.capabilities.cancel
    assert runner.outcome(slow).value == 0.5


def test_after_a_crash_it_is_not_known_whether_a_call_was_sent(make_executor):
    job = Job("e-0-1")
    assert make_executor().find([job]) == {"e-0-1": "unknown"}
    assert make_executor(in_doubt="wait").find([job]) == {"e-0-1": "known"}


def test_signed_calls_need_the_key_on_both_sides(deploy, runner, call):
    deploy(environment={"DURABLE_MONTY_SIGNING_KEY": "0123456789abcdef"})
    unsigned = call("support.functions.add", 1, 1)
    assert failure(runner.run(unsigned)).type == "SignatureMismatch"
    remote.configure(signing_key=b"0123456789abcdef")
    assert runner.run(call("support.functions.add", 1, 1)).value == 2


def test_a_handler_of_the_users_own_gets_plain_events(deploy, make_executor, run_with, call, tmp_path):
    """The handler that the first documentation of this project showed."""
    (tmp_path / "mine.py").write_text(
        "def handler(event, context):\n"
        "    from durable_monty.functions import execute_function\n"
        '    return {"result": execute_function(event["function_name"], event["args"])}\n'
    )
    deploy(more_path=str(tmp_path), handler="mine.handler")
    runner = run_with(make_executor(event_format="plain"))
    assert runner.run(call("support.functions.add", 20, 22)).value == 42
    failed = failure(runner.run(call("support.functions.fail", "ValueError", "no")))
    assert (failed.kind, failed.type, failed.message) == ("user", "ValueError", "no")
    assert "in fail" in failed.traceback

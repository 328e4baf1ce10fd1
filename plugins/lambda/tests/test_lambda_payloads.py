"""Values of every size: in the event, in S3, and over every limit."""

from __future__ import annotations

import json

import boto3
import pytest

from durable_monty import remote
from durable_monty.models import Refused
from durable_monty_lambda.events import MAX_EVENT_BYTES
from support.lambda_service import RECORD_LIMIT_BYTES, REGION


def failure(answer):
    return getattr(answer, "failure", None) or answer


def objects(aws_url, bucket):
    client = boto3.client("s3", endpoint_url=aws_url, region_name=REGION)
    found = [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
    client.close()
    return sorted(found)


@pytest.mark.parametrize("size", [1, 8 * 1024, 400_000])
def test_values_that_fit_travel_in_the_event(deploy, runner, call, size):
    """Request and answer stand together in one record: 400,000 bytes each way is what fits."""
    deploy()
    assert runner.run(call("support.functions.identity", "x" * size)).value == "x" * size


def test_text_that_grows_when_it_is_escaped_is_counted_as_it_may_be_sent(deploy, runner, call, service):
    deploy()
    text = "\u00fc" * 40_000 + '"' * 20_000
    assert runner.run(call("support.functions.identity", text)).value == text
    too_much = "\u00fc" * 90_000
    assert failure(runner.run(call("support.functions.identity", too_much))).type == "ResultTooLarge"
    assert service.undelivered == 0


@pytest.mark.parametrize(("size", "argument"), [(700_000, "x"), (2_000_000, ""), (7_000_000, "")])
def test_a_result_that_does_not_fit_is_a_failure_that_says_so(deploy, runner, call, service, size, argument):
    """700,000 bytes there and back, 2 MB back, and over Lambda's own 6 MB: never a record that is not delivered."""
    deploy()
    wanted = call("support.functions.identity", argument * size) if argument else call("support.functions.text", size)
    failed = failure(runner.run(wanted))
    assert (failed.kind, failed.type) == ("undecodable", "ResultTooLarge")
    assert "payload_bucket" in failed.message
    assert service.undelivered == 0


def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(deploy, runner, call, service):
    deploy()
    (refused,) = runner.submit(call("support.functions.identity", "x" * MAX_EVENT_BYTES))
    assert isinstance(refused, Refused)
    assert refused.retry_after_seconds is None
    assert "an asynchronous invocation carries 1000000" in refused.reason
    assert not service.requests


def test_a_record_that_lambda_could_not_deliver_is_lost(deploy, make_executor, run_with, call, service, tmp_path):
    """Only a handler that is not ours answers so much; Lambda tells of it in a metric and nowhere else."""
    (tmp_path / "much.py").write_text(f"def handler(event, context):\n    return 'x' * {RECORD_LIMIT_BYTES}\n")
    deploy(more_path=str(tmp_path), handler="much.handler")
    runner = run_with(make_executor(lost_after_seconds=1.5))
    failed = failure(runner.run(call("support.functions.add", 1, 1)))
    assert failed.kind == "lost"
    assert service.undelivered == 1


def test_an_answer_over_6_mb_of_a_foreign_handler_is_undecodable(deploy, runner, call, tmp_path):
    (tmp_path / "much.py").write_text("def handler(event, context):\n    return 'x' * 7_000_000\n")
    deploy(more_path=str(tmp_path), handler="much.handler")
    failed = failure(runner.run(call("support.functions.add", 1, 1)))
    assert (failed.kind, failed.type) == ("undecodable", "Function.ResponseSizeTooLarge")


@pytest.mark.parametrize("size", [1, 8 * 1024, 700_000, 5_000_000])
def test_with_a_bucket_values_of_every_size_go_there_and_back(
    deploy, make_executor, run_with, call, bucket, aws_url, size
):
    deploy()
    runner = run_with(make_executor(payload_bucket=bucket))
    wanted = call("support.functions.identity", "x" * size, job_id="e-0-1")
    runner.submit(wanted)
    outcome = runner.collect(completes=False)["e-0-1"]
    assert remote.read_reply(outcome.reply).value == "x" * size
    used = {1: [], 8 * 1024: []}.get(size, ["durable-monty/e-0-1/reply", "durable-monty/e-0-1/request"])
    # 700,000 bytes leave no room beside a request in the event, but a request in S3 leaves it to the reply.
    assert objects(aws_url, bucket) == (used if size != 700_000 else used[1:])
    runner.executor.complete([runner.jobs["e-0-1"]])
    assert objects(aws_url, bucket) == []


def test_a_reply_that_is_gone_from_the_bucket_is_lost(deploy, make_executor, run_with, call, bucket, aws_url):
    deploy()
    runner = run_with(make_executor(payload_bucket=bucket, visibility_timeout_seconds=1))
    runner.submit(call("support.functions.text", 2_000_000, job_id="e-0-1"))
    assert runner.collect(completes=False)["e-0-1"].reply is not None
    client = boto3.client("s3", endpoint_url=aws_url, region_name=REGION)
    client.delete_object(Bucket=bucket, Key="durable-monty/e-0-1/reply")
    client.close()
    assert runner.collect()["e-0-1"].failure.kind == "lost"


def test_a_record_cannot_make_the_worker_read_what_is_no_reply(
    deploy, make_executor, run_with, bucket, sqs, queue_url, aws_url
):
    """Whoever may write to the queue must not choose what the worker reads with its own rights."""
    record = {
        "requestPayload": {"job_id": "e-0-1"},
        "requestContext": {"condition": "Success"},
        "responsePayload": {"reply_s3": {"bucket": "secrets", "key": "password"}},
    }
    runner = run_with(make_executor(payload_bucket=bucket))
    sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps(record))
    failed = runner.collect()["e-0-1"].failure
    assert (failed.kind, failed.type) == ("refused", "ForeignPayload")

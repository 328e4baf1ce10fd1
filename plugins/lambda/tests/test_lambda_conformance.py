"""The conformance kit with real boto3, moto's SQS and real `awslambdaric` processes behind a service on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest

from durable_monty.testing import ExecutorSuite
from durable_monty_lambda import Executor, LambdaSettings
from support import servers
from support.lambda_durable import durable_service
from support.lambda_service import REGION, Function, LambdaService

ROOT = Path(__file__).parents[3]
TASK_PATH = os.pathsep.join(str(ROOT / folder) for folder in ("tests", "core/src", "plugins/lambda/src"))


@pytest.fixture(scope="module")
def lambda_settings(aws_url):
    """Of one function whose sandboxes stay warm from promise to promise, and one queue."""
    sqs = boto3.client(
        "sqs", endpoint_url=aws_url, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )
    queue_url = sqs.create_queue(QueueName="kit")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
    destination = {"Destination": attributes["QueueArn"]}
    service = LambdaService(sqs)
    service.deploy(
        Function(
            "durable-monty",
            TASK_PATH,
            concurrency=3,
            invoke_config={
                "MaximumRetryAttempts": 0,
                "MaximumEventAgeInSeconds": 3600,
                "DestinationConfig": {"OnSuccess": destination, "OnFailure": destination},
            },
        )
    )
    yield {
        "function_name": "durable-monty",
        "region": REGION,
        "results_queue_url": queue_url,
        "endpoint_url": service.url,
        "sqs_endpoint_url": aws_url,
        "invoke_threads": 8,
        # Sooner than in production: what comes back is what a worker that died has read, or what no record tells of.
        "visibility_timeout_seconds": 2,
        "lost_after_seconds": 15,
    }
    service.close()
    sqs.close()


@pytest.mark.thorough
class TestEvents(ExecutorSuite):
    largest_batch = 20
    # SQS waits for whole seconds.
    pause_seconds = 2.5

    @pytest.fixture
    def executor(self, lambda_settings):
        return Executor(LambdaSettings(**lambda_settings))

    def make_unreachable(self):
        url = f"http://127.0.0.1:{servers.free_port()}"
        away = {"endpoint_url": url, "sqs_endpoint_url": url}
        return Executor(self._executor.settings.model_copy(update=away))


@pytest.fixture(scope="module")
def durable_settings(tmp_path_factory):
    """Of one durable function, on AWS' own local runner."""
    with durable_service(None, tmp_path_factory.mktemp("runner")) as service:
        service.deploy(
            Function(
                "durable-monty",
                TASK_PATH,
                handler="durable_monty_lambda.durable_handler",
                concurrency=3,
                environment={"AWS_ENDPOINT_URL_LAMBDA": service.url},
                is_durable=True,
            )
        )
        yield {
            "function_name": "durable-monty",
            "region": REGION,
            "endpoint_url": service.url,
            "invoke_threads": 8,
            "durable": True,
            "durable_poll_seconds": 0.1,
            # The service in this process makes requests to the runner, which are counted too.
            "durable_reads_per_poll": 8,
        }


@pytest.mark.thorough
class TestDurable(ExecutorSuite):
    largest_batch = 20
    pause_seconds = 2.5

    @pytest.fixture
    def executor(self, durable_settings):
        return Executor(LambdaSettings(**durable_settings))

    def make_unreachable(self):
        away = {"endpoint_url": f"http://127.0.0.1:{servers.free_port()}"}
        return Executor(self._executor.settings.model_copy(update=away))

    @pytest.mark.xfail(reason="its code runs in a thread, which nothing interrupts; the core ends it at its time limit")
    def test_a_call_that_runs_longer_than_it_may_times_out(self, kit):
        super().test_a_call_that_runs_longer_than_it_may_times_out(kit)

    @pytest.mark.xfail(reason="the local runner stops the durable execution, and not the invocation that is running")
    def test_a_running_job_that_is_said_to_be_cancelled_does_not_end_well(self, kit, can):
        super().test_a_running_job_that_is_said_to_be_cancelled_does_not_end_well(kit, can)

    @pytest.mark.xfail(reason="the local runner has asked for the invocation already, and does not take that back")
    def test_a_queued_job_that_is_cancelled_does_not_run(self, kit, can):
        super().test_a_queued_job_that_is_cancelled_does_not_run(kit, can)

"""Real boto3 and awslambdaric; moto's SQS and S3; our own Lambda service between them."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from durable_monty import remote
from durable_monty.models import Call, Job, parse_job_id
from durable_monty_lambda import LambdaExecutor
from support.lambda_service import REGION, Function, LambdaService

ROOT = Path(__file__).parents[3]
TASK_PATH = os.pathsep.join(str(ROOT / folder) for folder in ("tests", "core/src", "plugins/lambda/src"))
DEADLINE_SECONDS = 60.0
FUNCTION = "durable-monty"


@pytest.fixture(scope="session")
def aws_url() -> Iterator[str]:
    """moto's server."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def sqs(aws_url):
    client = boto3.client("sqs", endpoint_url=aws_url, region_name=REGION)
    yield client
    client.close()


@pytest.fixture
def bucket(aws_url):
    client = boto3.client("s3", endpoint_url=aws_url, region_name=REGION)
    name = f"payloads-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    yield name
    client.close()


@pytest.fixture
def queue_url(sqs) -> str:
    return sqs.create_queue(QueueName=f"results-{uuid.uuid4().hex}")["QueueUrl"]


@pytest.fixture
def invoke_config(sqs, queue_url) -> dict:
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
    destination = {"Destination": attributes["QueueArn"]}
    return {
        "MaximumRetryAttempts": 0,
        "MaximumEventAgeInSeconds": 3600,
        "DestinationConfig": {"OnSuccess": destination, "OnFailure": destination},
    }


@pytest.fixture
def service(sqs) -> Iterator[LambdaService]:
    opened = LambdaService(sqs)
    yield opened
    opened.close()


@pytest.fixture
def deploy(service, invoke_config, aws_url):
    """Deploys a function; arguments are the fields of `Function`."""

    def deploy(**fields):
        environment = {"AWS_ENDPOINT_URL_S3": aws_url, **fields.pop("environment", {})}
        more_path = fields.pop("more_path", None)
        path = os.pathsep.join(filter(None, (more_path, TASK_PATH)))
        values = {"name": FUNCTION, "path": path, "invoke_config": invoke_config, **fields}
        return service.deploy(Function(environment=environment, **values))

    return deploy


@pytest.fixture
def settings(service, aws_url, queue_url) -> dict:
    return {
        "function_name": FUNCTION,
        "region": REGION,
        "results_queue_url": queue_url,
        "endpoint_url": service.url,
        "sqs_endpoint_url": aws_url,
        "s3_endpoint_url": aws_url,
        "invoke_threads": 8,
    }


@pytest.fixture
def make_executor(settings):
    """Makes executors on the same function and queue; arguments are fields of the settings."""
    made = []

    def make(**changes):
        values = {**settings, **changes}
        made.append(LambdaExecutor(values.pop("function_name"), **values))
        return made[-1]

    yield make
    for executor in made:
        executor.stop(0)


class Runner:
    """Submits calls and collects outcomes, as the core does."""

    def __init__(self, executor):
        self.executor = executor
        self.jobs = {}

    def submit(self, *calls):
        answers = {answer.job_id: answer for answer in self.executor.submit(calls)}
        for job_id, answer in answers.items():
            if hasattr(answer, "token"):
                self.jobs[job_id] = Job(job_id, answer.token)
        return [answers[call.job_id] for call in calls]

    def poll(self, wait_seconds=0):
        return self.executor.poll(list(self.jobs.values())[:200], wait_seconds)

    def collect(self, count=1, *, completes=True):
        """Outcomes of so many jobs."""
        found = {}
        ends_at = time.monotonic() + DEADLINE_SECONDS
        while len(found) < count:
            assert time.monotonic() < ends_at, f"{len(found)} of {count} outcomes came"
            outcomes = self.poll(1)
            found |= {outcome.job_id: outcome for outcome in outcomes}
            if completes and outcomes:
                self.executor.complete([self.jobs.get(item.job_id, Job(item.job_id)) for item in outcomes])
                for outcome in outcomes:
                    self.jobs.pop(outcome.job_id, None)
        return found

    def run(self, call):
        """What `read_reply` makes of the reply, or the failure."""
        self.submit(call)
        return self.outcome(call)

    def outcome(self, call):
        outcome = self.collect()[call.job_id]
        return outcome.failure if outcome.reply is None else remote.read_reply(outcome.reply)


@pytest.fixture
def run_with():
    return Runner


@pytest.fixture
def runner(make_executor) -> Runner:
    return Runner(make_executor())


@pytest.fixture
def call():
    """Makes calls: `call("module.name", *args)`."""
    numbers = iter(range(100_000))

    def make(function, *args, job_id=None, timeout_seconds=None, execution_id="e"):
        job_id = job_id or f"{execution_id}-{next(numbers)}-1"
        envelope = remote.make_envelope(function, args, job_id=job_id)
        arguments = envelope.decode().partition('"call":')[2].removesuffix("}}")
        return Call(job_id, *parse_job_id(job_id), function, arguments, envelope, timeout_seconds)

    return make

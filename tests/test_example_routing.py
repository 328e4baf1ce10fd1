"""One workflow whose functions run in the worker, on an RQ worker, at Modal and in Lambda, by its TOML file alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from support import servers
from support.lambda_service import REGION, Function, LambdaService
from support.modal_server import ModalServer
from support.supervised import Supervised

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "routing"
SCRIPTS = Path(sys.executable).parent


def commands():
    """What the page says to type, by its first words."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", (EXAMPLE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return {" ".join(line.split()[: 3 if "--config" in line else 2]): line for line in lines}


def run(command):
    program, *arguments = shlex.split(command)
    done = subprocess.run([SCRIPTS / program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def rq_worker(url, command, folder):
    """The page's command, on this server."""
    variable, program, *arguments = shlex.split(command)
    assert variable == "PYTHONPATH=."
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    worker = Supervised("rq", [str(SCRIPTS / program), *arguments, "--url", url], environment, folder / "rq.log")
    worker.ensure_running()
    try:
        yield
    finally:
        worker.kill(children=True)


@contextmanager
def moto():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def lambda_function(aws_url, package):
    """The function `catalogue` with the page's package, and its queue; gives the addresses of both."""
    zipfile.ZipFile(package).extractall("task")
    sqs = boto3.client("sqs", endpoint_url=aws_url, region_name=REGION)
    queue_url = sqs.create_queue(QueueName="catalogue-results")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    destinations = {"OnSuccess": {"Destination": arn}, "OnFailure": {"Destination": arn}}
    config = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 3600, "DestinationConfig": destinations}
    service = LambdaService(sqs)
    service.deploy(Function("catalogue", str(Path("task").resolve()), invoke_config=config))
    try:
        yield service, queue_url
    finally:
        service.close()
        sqs.close()


@pytest.fixture
def example(tmp_path):
    """The example's folder, to work in."""
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path / file.name)
    return tmp_path


def test_without_the_others_all_of_it_runs_in_the_worker(example):
    (example / "local.toml").write_text('executor = "local"\n')
    assert run(commands()["durable-monty run --config"]) == shown()


def shown():
    """The result on the page."""
    (block,) = re.findall(r"^ *```console\n(.*?)^ *```", (EXAMPLE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return "".join(f"{line[3:]}\n" for line in block.splitlines())


@pytest.mark.examples
@pytest.mark.timeout(300)
def test_the_functions_of_one_workflow_run_in_four_places_by_toml_alone(example, monkeypatch):
    """The page's commands in its order; only the addresses are those of servers on this machine."""
    page = commands()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    run(page["durable-monty lambda"])
    with (
        servers.valkey() as valkey,
        rq_worker(valkey.url, page["PYTHONPATH=. rq"], example),
        ModalServer() as modal,
        moto() as aws_url,
        lambda_function(aws_url, example / "function.zip") as (service, queue_url),
    ):
        for name, value in {**modal.variables, "PYTHONPATH": str(example)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", service.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", aws_url)
        monkeypatch.setenv("DURABLE_MONTY_EXECUTORS__RQ__REDIS_URL", valkey.url)
        monkeypatch.setenv("DURABLE_MONTY_EXECUTORS__LAMBDA__RESULTS_QUEUE_URL", queue_url)
        monkeypatch.setenv("DURABLE_MONTY_EXECUTORS__LAMBDA__REGION", REGION)
        run(page["modal deploy"])
        run(page["durable-monty executors"])
        assert run(page["durable-monty run"]) == shown()
        calls = json.loads(run(f"{page['durable-monty show']} --all --json"))["calls"]
        assert Counter((call["function"], call["executor"]) for call in calls) == {
            ("catalogue.list_pictures", "local"): 1,
            ("catalogue.shrink", "rq"): 12,
            ("catalogue.describe", "modal"): 12,
            ("catalogue.page", "lambda"): 12,
        }
        assert {call["status"] for call in calls} == {"completed"}
        # One more each: the probes of `executors check`.
        assert (modal.plane.started, service.invocations) == (13, 13)

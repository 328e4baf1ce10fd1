"""Whole executions through Lambda, as a user configures them: a TOML file, a service, a worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, Worker, config, init_db
from support.lambda_service import Fault, Function, LambdaService
from support.servers import free_port
from support.workers import eventually, running

ROOT = Path(__file__).parents[3]
SCRIPT = str(Path(sys.executable).parent / "durable-monty")
CODE = """
from asyncio import gather
values = await gather(*[add(n, 1) for n in range(count)])
sum(values)
"""


def toml(settings, **more):
    values = {"plugin": "lambda", **settings, **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(['executor = "fn"', "[store]", 'url = "sqlite:///lambda.db"', "[executors.fn]", *lines, ""])


@pytest.fixture
def open_service(settings, tmp_path):
    """Opens the service that the TOML file describes; arguments are more settings of the executor."""
    opened = []

    def open_(**more):
        (tmp_path / "durable-monty.toml").write_text(toml(settings, **more))
        chosen = config.load()
        opened.append(OrchestratorService(init_db(chosen.store.url, synchronous="NORMAL"), chosen))
        return opened[-1]

    yield open_
    for service in opened:
        service.close()


def test_an_execution_runs_in_lambda_by_its_configuration_alone(deploy, open_service):
    deploy()
    orchestrator = open_service()
    execution_id = orchestrator.start_execution(CODE, ["support.functions.add"], inputs={"count": 10})
    Worker(orchestrator).run(until_complete=True)
    assert orchestrator.get_result(execution_id) == 55


def test_what_a_function_raises_is_caught_in_the_workflow(deploy, open_service):
    deploy()
    orchestrator = open_service()
    code = "try:\n    await fail('ValueError', 'no')\nexcept ValueError as error:\n    said = str(error)\nsaid"
    execution_id = orchestrator.start_execution(code, ["support.functions.fail"])
    Worker(orchestrator).run(until_complete=True)
    assert orchestrator.get_result(execution_id) == "no"


@pytest.mark.slow
def test_waiting_for_a_sandbox_is_no_part_of_an_attempt(deploy, settings, tmp_path):
    """Five calls of one second and one sandbox: the last of them would be out of time if waiting counted."""
    deploy(concurrency=1)
    more = '[worker]\ntimeout_grace_seconds = 0.1\n[function."support.functions.sleep"]\ntimeout_seconds = 3\n'
    (tmp_path / "durable-monty.toml").write_text(toml(settings) + more)
    chosen = config.load()
    code = "from asyncio import gather\nawait gather(*[sleep(1) for _ in range(5)])"
    with OrchestratorService(init_db(chosen.store.url, synchronous="NORMAL"), chosen) as orchestrator:
        execution_id = orchestrator.start_execution(code, ["support.functions.sleep"])
        Worker(orchestrator).run(until_complete=True)
        assert orchestrator.get_result(execution_id) == [1] * 5


def test_every_fault_of_the_service_is_survived(deploy, service, open_service, sqs, queue_url):
    """Throttled, refused, delivered twice, dropped, an answer lost, a request lost: all calls end, once each."""
    deploy()
    orchestrator = open_service(lost_after_seconds=3.0)
    service.faults.extend(Fault)
    execution_id = orchestrator.start_execution(CODE, ["support.functions.add"], inputs={"count": 20})
    Worker(orchestrator).run(until_complete=True)
    assert orchestrator.get_result(execution_id) == 210
    assert not service.faults
    calls = orchestrator.runtime.store.calls(execution_id)
    assert sorted(call.attempt for call in calls) == [1] * 19 + [2], "only the event that was dropped was lost"


def test_a_killed_sandbox_does_not_fail_the_execution(deploy, open_service):
    deployed = deploy()
    orchestrator = open_service()
    execution_id = orchestrator.start_execution("await sleep(2)", ["support.functions.sleep"])
    with running(Worker(orchestrator)):
        eventually(lambda: any(sandbox.kill() for sandbox in deployed.sandboxes))
        orchestrator.wait(execution_id, 30)
    assert orchestrator.get_result(execution_id) == 2


def test_lambda_that_comes_up_later_gets_the_calls_then(open_service, settings, sqs, invoke_config, deploy):
    port = free_port()
    settings["endpoint_url"] = f"http://127.0.0.1:{port}"
    orchestrator = open_service()
    execution_id = orchestrator.start_execution(CODE, ["support.functions.add"], inputs={"count": 5})
    with running(Worker(orchestrator)):
        eventually(lambda: orchestrator.get_execution(execution_id)["status"] == "waiting")
        time.sleep(0.5)  # the worker meets the closed port a few times; nothing tells when
        late = LambdaService(sqs, port=port)
        try:
            path = os.pathsep.join(str(ROOT / folder) for folder in ("tests", "core/src", "plugins/lambda/src"))
            late.deploy(Function("durable-monty", path, invoke_config=invoke_config))
            orchestrator.wait(execution_id, 60)
        finally:
            late.close()
    assert orchestrator.get_result(execution_id) == 15


def test_a_worker_that_is_killed_is_followed_by_one_that_gets_the_outcomes(
    deploy, open_service, settings, tmp_path, service
):
    """The calls go on in Lambda meanwhile, and none runs twice."""
    deploy(concurrency=4)
    orchestrator = open_service(visibility_timeout_seconds=2)
    ledger = tmp_path / "ledger"
    code = "from asyncio import gather\nlen(await gather(*[slowly(path, n) for n in range(8)]))"
    execution_id = orchestrator.start_execution(code, ["support.functions.slowly"], inputs={"path": str(ledger)})
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    worker = subprocess.Popen([SCRIPT, "worker"], env=environment, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: service.invocations >= 1 and len(_tokens(orchestrator, execution_id)) == 8)
    finally:
        worker.kill()
        worker.wait()
    Worker(orchestrator).run(until_complete=True)
    assert orchestrator.get_result(execution_id) == 8
    assert len(ledger.read_text().splitlines()) == 8


def _tokens(orchestrator, execution_id):
    return [call for call in orchestrator.runtime.store.calls(execution_id) if call.token]


def test_the_how_to_leads_from_a_program_to_a_finished_execution(deploy, settings, tmp_path):
    """Its program, its package, its configuration: only the addresses are those of the local service."""
    page = (ROOT / "docs/howto/lambda.md").read_text()
    program, handler = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    configuration, durable = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "shop.py").write_text(program)
    subprocess.run([SCRIPT, "lambda", "package", "shop"], check=True)
    zipfile.ZipFile("function.zip").extractall(tmp_path / "task")
    deploy(path=str(tmp_path / "task"))
    for key in ("results_queue_url", "region"):
        configuration = re.sub(
            rf'^{key} = ".*"$', f"{key} = {json.dumps(settings[key])}", configuration, flags=re.MULTILINE
        )
    more = [f"{key} = {json.dumps(settings[key])}\n" for key in settings if key.endswith("endpoint_url")]
    (tmp_path / "durable-monty.toml").write_text(configuration + "".join(more))
    checked = subprocess.run([SCRIPT, "executors", "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    command = [SCRIPT, "run", "shop.py", "--input", 'items=["tea", "cake"]']
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "700\n"
    (tmp_path / "durable-monty.toml").write_text(f'executor = "fn"\n{durable}')
    subprocess.run([SCRIPT, "config", "check"], check=True)
    compile(handler, "handler.py", "exec")


@pytest.mark.thorough
def test_a_thousand_calls_are_in_lambda_at_once(deploy, open_service, service, tmp_path):
    """None of them ends before all of them have been taken."""
    deployed = deploy(concurrency=2)
    orchestrator = open_service()
    files = [str(tmp_path / name) for name in ("begun", "release")]
    code = "from asyncio import gather\nsum(await gather(*[hold(begun, release) for n in range(1000)]))"
    inputs = dict(zip(("begun", "release"), files, strict=True))
    execution_id = orchestrator.start_execution(code, ["support.functions.hold"], inputs=inputs)
    with running(Worker(orchestrator)):
        eventually(lambda: deployed.events.qsize() == 998)
        Path(files[1]).touch()
        orchestrator.wait(execution_id, 100)
    assert orchestrator.get_result(execution_id) == 1000
    assert service.invocations == 1000


@pytest.mark.examples
@pytest.mark.timeout(300)
def test_the_census_through_lambda_gives_what_the_local_executor_gives(deploy, settings, tmp_path):
    example = ROOT / "docs" / "examples" / "census" / "census.py"
    deploy(more_path=str(example.parent), environment={"CENSUS_LEDGER": str(tmp_path / "ledger.txt")})

    def census(execution_id):
        command = [SCRIPT, "run", str(example), "--id", execution_id, "--input", "limit=100"]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    local = census("local")
    (tmp_path / "durable-monty.toml").write_text(toml(settings) + '[routes]\n"census.*" = "fn"\n')
    assert census("lambda") == local
    assert len((tmp_path / "ledger.txt").read_text().splitlines()) == local["files"] == 100

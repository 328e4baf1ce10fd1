"""The durable mode, on AWS' own local runner."""

from __future__ import annotations

import time

import pytest

from durable_monty import Worker
from durable_monty.models import Accepted, Job
from durable_monty_lambda.invoking import execution_name
from support.lambda_durable import durable_service
from support.lambda_service import Fault
from support.workers import eventually, running

# Nothing in here depends on the interpreter.
pytestmark = pytest.mark.slow


@pytest.fixture
def service(sqs, tmp_path):
    with durable_service(sqs, tmp_path) as opened:
        yield opened


@pytest.fixture
def deployed(deploy, service):
    """A durable function; its handler reads and writes checkpoints where the executor reads results."""
    return deploy(
        handler="durable_monty_lambda.durable_handler",
        is_durable=True,
        environment={"AWS_ENDPOINT_URL_LAMBDA": service.url},
    )


@pytest.fixture
def runner(make_executor, run_with):
    return run_with(make_executor(durable=True, results_queue_url=None))


def failure(answer):
    return getattr(answer, "failure", None) or answer


def test_a_durable_execution_is_started_and_read_by_its_arn(deployed, runner, call):
    assert runner.run(call("support.functions.add", 2, 3)).value == 5
    assert runner.run(call("support.functions.nap", 0.01, 7)).value == 7


def test_what_the_function_raises_comes_with_its_traceback(deployed, runner, call):
    failed = failure(runner.run(call("support.functions.out_of_stock")))
    assert (failed.kind, failed.type, failed.message) == ("user", "OutOfStock", "no more apples")
    assert "in out_of_stock" in failed.traceback


def test_starting_the_same_job_again_runs_it_once(deployed, service, runner, call, tmp_path):
    """After a crash, and after an answer that was lost."""
    ledger = tmp_path / "ledger"
    wanted = call("support.functions.note", str(ledger), "ran")
    service.faults.append(Fault.LOSE_ANSWER)
    (refused,) = runner.submit(wanted)
    assert refused.retry_after_seconds
    (accepted,), (again,) = runner.submit(wanted), runner.submit(wanted)
    assert isinstance(accepted, Accepted)
    assert accepted.token.split()[1] == again.token.split()[1]
    assert runner.outcome(wanted).value == "ran"
    assert ledger.read_text() == "ran\n"
    assert runner.executor.capabilities.caller_ids


def test_a_job_that_was_started_with_other_settings_is_found_by_its_name(
    deployed, runner, make_executor, run_with, call, bucket
):
    wanted = call("support.functions.sleep", 0.5)
    (accepted,) = runner.submit(wanted)
    other = run_with(make_executor(durable=True, results_queue_url=None, payload_bucket=bucket))
    (found,) = other.submit(wanted)
    assert found.token.split()[1] == accepted.token.split()[1]
    assert other.executor.find([Job(wanted.job_id), Job("e-999-1")]) == {wanted.job_id: "known", "e-999-1": "absent"}


def test_a_durable_execution_can_be_stopped(deployed, runner, call):
    slow = call("support.functions.sleep", 20)
    runner.submit(slow)
    eventually(lambda: any(sandbox._current for sandbox in deployed.sandboxes))
    assert runner.executor.cancel([runner.jobs[slow.job_id], Job("e-999-1")], force=True) == {
        slow.job_id: True,
        "e-999-1": False,
    }
    assert failure(runner.outcome(slow)).kind == "cancelled"


def test_an_execution_that_lambda_does_not_know_is_lost(deployed, runner):
    runner.jobs["e-0-1"] = Job("e-0-1", f"{time.time():.0f} gone/gone")
    assert runner.collect()["e-0-1"].failure.kind == "lost"


def test_many_executions_are_read_by_one_listing_and_a_few_requests(deployed, service, make_executor, run_with, call):
    runner = run_with(make_executor(durable=True, results_queue_url=None, durable_reads_per_poll=3))
    held = [call("support.functions.sleep", 8) for _ in range(2)]
    runner.submit(*held)
    runner.submit(*[call("support.functions.add", n, n) for n in range(6)])
    service.requests.clear()
    runner.poll()
    reads = [path for path in service.requests if path.startswith("/2025-12-01/durable-executions/")]
    listings = [path for path in service.requests if "/durable-executions?" in path]
    assert len(listings) == 1
    assert len(reads) <= 3


def test_names_are_short_and_tell_jobs_apart():
    long = "x" * 100
    names = {execution_name(job_id) for job_id in ("e-0-1", f"{long}-0-1", f"{long}-0-2", f"{long}-1-1")}
    assert len(names) == 4
    assert max(map(len, names)) <= 64


def test_large_values_go_through_the_bucket(deployed, make_executor, run_with, call, bucket):
    runner = run_with(make_executor(durable=True, results_queue_url=None, payload_bucket=bucket))
    assert runner.run(call("support.functions.identity", "x" * 1_500_000)).value == "x" * 1_500_000


def test_the_check_of_a_durable_function_needs_no_queue_and_asks_the_handler(deployed, make_executor):
    options = {"durable": True, "results_queue_url": None}
    findings = make_executor(**options, check_functions=["support.functions.add"]).check()
    assert {finding.level for finding in findings} == {"info"}, findings
    assert any("has durable-monty-core" in finding.message for finding in findings)
    findings = make_executor(**options, check_functions=["support.functions.gone"]).check()
    (missing,) = [finding for finding in findings if finding.level == "error"]
    assert "cannot run 'support.functions.gone'" in missing.message


def test_a_sandbox_that_is_killed_fails_no_job_for_good(deployed, runner, call):
    """Lambda runs the execution again, or says that it failed, and then the engine does."""
    wanted = call("support.functions.sleep", 1.0)
    runner.submit(wanted)
    eventually(lambda: any(sandbox.kill() for sandbox in deployed.sandboxes))
    ended = runner.outcome(wanted)
    assert getattr(ended, "value", None) == 1.0 or failure(ended).kind == "lost"


def test_an_execution_runs_on_durable_functions_and_its_cancel_stops_them(deployed, make_executor, lite_service):
    executor = make_executor(durable=True, results_queue_url=None, durable_poll_seconds=0.1)
    quick = lite_service.start_execution("await add(1, 2)", ["support.functions.add"])
    slow = lite_service.start_execution("await sleep(60)", ["support.functions.sleep"])
    with running(Worker(lite_service, executor)):
        assert lite_service.wait(quick, 30)["output"] == 3
        eventually(lambda: any(sandbox._current for sandbox in deployed.sandboxes))
        (call,) = lite_service.runtime.store.calls(slow)
        lite_service.cancel(slow)
        assert lite_service.wait(slow, 30)["status"] == "cancelled"
        arn = call.token.split()[1]
        read = executor._clients.functions.get_durable_execution
        eventually(lambda: read(DurableExecutionArn=arn)["Status"] == "STOPPED")

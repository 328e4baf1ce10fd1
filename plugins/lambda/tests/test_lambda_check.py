"""`executors check`: each thing that is wrong is found, and each finding says what to do."""

from __future__ import annotations

import pytest

# Nothing in here depends on the interpreter.
pytestmark = pytest.mark.slow


def errors(executor):
    findings = executor.check()
    assert all(finding.remedy for finding in findings if finding.level != "info")
    return [finding for finding in findings if finding.level == "error"]


def test_nothing_is_wrong(deploy, make_executor):
    deploy()
    findings = make_executor(check_functions=["support.functions.add"]).check()
    assert {finding.level for finding in findings} == {"info"}, findings
    assert any("has durable-monty-core 0.2.0" in finding.message for finding in findings)


def test_bad_credentials(deploy, service, make_executor):
    deploy()
    service.credentials = {"somebody-else"}
    (found,) = errors(make_executor())
    assert "AWS does not take the credentials" in found.message
    assert "AWS_PROFILE" in found.remedy


def test_no_credentials(deploy, make_executor, monkeypatch):
    deploy()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (found,) = errors(make_executor())
    assert "no AWS credentials" in found.message


def test_lambda_that_does_not_answer(make_executor):
    (found,) = errors(make_executor(endpoint_url="http://127.0.0.1:1"))
    assert "AWS does not answer" in found.message
    assert "endpoint_url" in found.remedy


def test_a_missing_function(make_executor):
    (found,) = errors(make_executor())
    assert "Function not found" in found.message
    assert "durable-monty lambda template" in found.remedy


def test_a_missing_queue(deploy, make_executor, queue_url):
    deploy()
    (found,) = errors(make_executor(results_queue_url=f"{queue_url}-of-yesterday"))
    assert "does not exist" in found.message
    assert "results_queue_url" in found.remedy


def test_a_missing_bucket(deploy, make_executor):
    deploy()
    (found,) = errors(make_executor(payload_bucket="nobody-made-this-bucket"))
    assert "the payload bucket 'nobody-made-this-bucket' does not exist" in found.message


def test_a_function_without_a_configuration_of_asynchronous_invocations(deploy, make_executor):
    deploy(invoke_config={})
    (found,) = errors(make_executor())
    assert "MaximumRetryAttempts to 0" in found.remedy


@pytest.mark.parametrize("condition", ["OnSuccess", "OnFailure"])
def test_a_missing_destination(deploy, make_executor, invoke_config, condition):
    del invoke_config["DestinationConfig"][condition]
    deploy()
    (found,) = errors(make_executor())
    assert f"no {condition} destination" in found.message


def test_a_destination_that_is_another_queue(deploy, make_executor, invoke_config):
    invoke_config["DestinationConfig"]["OnFailure"] = {"Destination": "arn:aws:sqs:us-east-1:1:other"}
    deploy()
    (found,) = errors(make_executor())
    assert "OnFailure destination is arn:aws:sqs:us-east-1:1:other" in found.message


def test_retries_of_lambda_itself(deploy, make_executor, invoke_config):
    del invoke_config["MaximumRetryAttempts"]
    deploy()
    (found,) = errors(make_executor())
    assert "2 more times" in found.message


def test_limits_that_do_not_fit_the_settings(deploy, make_executor, invoke_config):
    invoke_config["MaximumEventAgeInSeconds"] = 7200
    deploy(timeout=100)
    found = errors(make_executor(function_timeout_seconds=60))
    assert [item.remedy.partition(",")[0] for item in found] == [
        "set function_timeout_seconds = 100",
        "set event_age_seconds = 7200",
    ]


def test_another_version_on_the_remote_side(deploy, make_executor, tmp_path):
    metadata = tmp_path / "durable_monty_core-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: durable-monty-core\nVersion: 0.1.0\n")
    deploy(more_path=str(tmp_path))
    (found,) = errors(make_executor())
    assert "the function has durable-monty-core 0.1.0, the worker has 0.2.0" in found.message
    assert "durable-monty lambda package" in found.remedy


def test_functions_that_are_missing_remotely(deploy, make_executor):
    deploy()
    (found,) = errors(make_executor(check_functions=["support.functions.add", "support.functions.gone"]))
    assert "cannot run 'support.functions.gone'" in found.message


def test_another_handler(deploy, make_executor, tmp_path):
    (tmp_path / "other.py").write_text("def handler(event, context):\n    return {}\n")
    deploy(more_path=str(tmp_path), handler="other.handler")
    (found,) = errors(make_executor())
    assert "it is not durable_monty_lambda.handler" in found.message


def test_a_handler_that_cannot_be_imported(deploy, make_executor):
    deploy(handler="gone.handler")
    (found,) = errors(make_executor())
    assert "the handler fails: Runtime.ImportModuleError" in found.message


def test_a_function_that_is_no_durable_function(deploy, make_executor):
    deploy()
    (found,) = errors(make_executor(durable=True))
    assert "was created without DurableConfig" in found.message


def test_the_check_writes_nothing_to_the_account(deploy, service, make_executor):
    deploy()
    executor = make_executor()
    executor.check()
    kinds = {path.split("/functions/")[1].partition("?")[0] for path in service.requests}
    assert kinds == {f"durable-monty/{what}" for what in ("configuration", "event-invoke-config", "invocations")}

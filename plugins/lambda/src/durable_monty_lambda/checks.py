"""The pre-flight check. It reads the account's configuration and runs a probe; it changes nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from durable_monty.models import Failure, Finding
from durable_monty_lambda.clients import MISSING, Clients, code_of, status_of
from durable_monty_lambda.events import dumped
from durable_monty_lambda.records import read_error
from durable_monty_lambda.settings import LambdaSettings

_TEMPLATE = "deploy the template of `durable-monty lambda template`"
_PACKAGE = "build the package anew with `durable-monty lambda package` and deploy it"
_BAD_CREDENTIALS = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
     "ExpiredToken", "ExpiredTokenException", "MissingAuthenticationTokenException", "InvalidAccessKeyId"}
)  # fmt: skip
_FORBIDDEN = frozenset({"AccessDeniedException", "AccessDenied", "AuthorizationError", "403"})
_DEFAULT_RETRIES = 2
_DEFAULT_AGE_SECONDS = 21600
_DAY_SECONDS = 24 * 3600
_PROBE_SECONDS = 30.0
_PROBE_PAUSE_SECONDS = 0.5


class Check:
    """One run of the check."""

    def __init__(self, clients: Clients, settings: LambdaSettings) -> None:
        self._clients = clients
        self._settings = settings
        self._findings: list[Finding] = []

    def run(self) -> list[Finding]:
        """See `ExecutorSpec.check`."""
        function = self._ask("the Lambda function", f"create it: {_TEMPLATE}", self._function)
        if self._is_hopeless:
            return self._findings
        if function is not None:
            self._check_function(function)
        if self._settings.durable:
            self._check_durable(function)
        else:
            self._check_destinations(function)
        if self._settings.payload_bucket is not None:
            self._ask(
                f"the payload bucket {self._settings.payload_bucket!r}",
                "create it, or name another as payload_bucket",
                lambda: self._clients.objects.head_bucket(Bucket=self._settings.payload_bucket),
            )
        if function is not None and self._settings.event_format == "envelope" and not self._is_broken:
            self._check_remote()
        return self._findings

    @property
    def _is_hopeless(self) -> bool:
        """Whether asking on would only tell the same again."""
        return any("credentials" in item.message or "does not answer" in item.message for item in self._findings)

    @property
    def _is_broken(self) -> bool:
        return self._settings.durable and any(item.level == "error" for item in self._findings)

    def _say(self, level: Any, message: str, remedy: str = "") -> None:
        self._findings.append(Finding(level, message, remedy))

    def _ask(self, what: str, if_missing: str, request: Callable[[], Any]) -> Any:
        """The answer; None after a finding that says why there is none."""
        try:
            return request()
        except (NoCredentialsError, PartialCredentialsError) as error:
            self._say("error", f"no AWS credentials: {error}", "set AWS_PROFILE, or run `aws configure`")
        except ClientError as error:
            code = code_of(error)
            if code in _BAD_CREDENTIALS:
                remedy = "renew them, or choose others with AWS_PROFILE or `profile` of the executor"
                self._say("error", f"AWS does not take the credentials: {error}", remedy)
            elif code in _FORBIDDEN or status_of(error) == 403:
                remedy = "attach the policy WorkerPolicy of the template to whoever runs the worker"
                self._say("error", f"reading {what} is not allowed: {error}", remedy)
            elif code in MISSING or status_of(error) == 404 or "NonExistentQueue" in code:
                self._say("error", f"{what} does not exist: {error}", if_missing)
            else:
                self._say("error", f"reading {what} failed: {error}", "try again, or see the AWS health page")
        except BotoCoreError as error:
            self._say("error", f"AWS does not answer: {error}", "check the network, `region` and `endpoint_url`")
        return None

    def _function(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._clients.functions.get_function_configuration(**self._settings.named)
        return answer

    def _check_function(self, function: dict[str, Any]) -> None:
        seconds = function.get("Timeout", 3)
        runtime = function.get("Runtime", "image")
        self._say("info", f"function {function['FunctionName']!r}: {runtime}, timeout {seconds} s")
        state = function.get("State", "Active")
        if state not in ("Active", "Inactive"):
            text = f"the function is {state}: {function.get('StateReason', 'no reason given')}"
            self._say("error", text, "wait until it is Active, or deploy it anew")
        if seconds > self._settings.function_timeout_seconds:
            text = f"the function may run for {seconds} s, function_timeout_seconds is less: calls would count as lost"
            self._say("error", text, f"set function_timeout_seconds = {seconds}")

    def _check_durable(self, function: dict[str, Any] | None) -> None:
        if function is not None and not function.get("DurableConfig"):
            text = "the function is no durable function: it was created without DurableConfig"
            self._say(
                "error", text, "deploy the template of `durable-monty lambda template --durable`, or durable = false"
            )

    def _check_destinations(self, function: dict[str, Any] | None) -> None:
        url = self._settings.results_queue_url
        answer = self._ask(
            f"the results queue {url!r}",
            f"create it: {_TEMPLATE}, or correct results_queue_url",
            lambda: self._clients.queue.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]),
        )
        queue = answer["Attributes"] if answer is not None else None
        if queue is not None:
            self._check_queue(queue)
        if function is None:
            return
        config = self._ask(
            "the function's configuration of asynchronous invocations",
            f"set both destinations to the results queue and MaximumRetryAttempts to 0: {_TEMPLATE}",
            lambda: self._clients.functions.get_function_event_invoke_config(**self._settings.named),
        )
        if config is not None:
            self._check_invoke_config(config, queue["QueueArn"] if queue is not None else None)

    def _check_queue(self, queue: dict[str, str]) -> None:
        waiting = queue.get("ApproximateNumberOfMessages", "0")
        self._say("info", f"results queue {queue['QueueArn']}: {waiting} records wait")
        kept_seconds = int(queue.get("MessageRetentionPeriod", "0"))
        if kept_seconds < 4 * _DAY_SECONDS:
            text = (
                f"the results queue keeps records for {kept_seconds} s: what comes while no worker runs is lost after"
            )
            self._say("warning", text, f"set its MessageRetentionPeriod to {14 * _DAY_SECONDS} (14 days)")

    def _check_invoke_config(self, config: dict[str, Any], queue_arn: str | None) -> None:
        destinations = config.get("DestinationConfig") or {}
        for condition in ("OnSuccess", "OnFailure"):
            found = (destinations.get(condition) or {}).get("Destination")
            if found is None:
                text = f"the function has no {condition} destination: no outcome of that kind would ever come"
                self._say("error", text, f"set it to the results queue: {_TEMPLATE}")
            elif queue_arn is not None and found != queue_arn:
                text = f"the function's {condition} destination is {found}, the results queue is {queue_arn}"
                self._say("error", text, "make them the same: change the destination, or results_queue_url")
        retries = config.get("MaximumRetryAttempts", _DEFAULT_RETRIES)
        if retries != 0:
            text = f"Lambda itself would run a failed call {retries} more times (MaximumRetryAttempts)"
            self._say("error", text, "set MaximumRetryAttempts to 0: retries are durable-monty's")
        age_seconds = config.get("MaximumEventAgeInSeconds", _DEFAULT_AGE_SECONDS)
        if age_seconds > self._settings.event_age_seconds:
            text = (
                f"an event may wait for {age_seconds} s, event_age_seconds is less: calls would count as lost too soon"
            )
            self._say("error", text, f"set event_age_seconds = {age_seconds}, or lower MaximumEventAgeInSeconds")

    def _check_remote(self) -> None:
        """Ask the handler itself."""
        event = dumped({"probe": {"functions": self._settings.check_functions}})
        probe = self._probe_durable if self._settings.durable else self._probe
        answer = self._ask("the Lambda function", _TEMPLATE, lambda: probe(event))
        if answer is None:
            return
        if isinstance(answer, Failure):
            self._say("error", f"the handler fails: {answer.type}: {answer.message}", _PACKAGE)
        elif not isinstance(answer, dict) or "version" not in answer or "missing" not in answer:
            handler = "durable_handler" if self._settings.durable else "handler"
            text = f"the handler answered {answer!r:.100}, it is not durable_monty_lambda.{handler}"
            self._say("error", text, f"set the function's handler to durable_monty_lambda.{handler}; {_PACKAGE}")
        else:
            self._check_probe(answer)

    def _probe(self, event: bytes) -> Any:
        answer = self._clients.functions.invoke(InvocationType="RequestResponse", Payload=event, **self._settings.named)
        payload = _parsed(answer["Payload"].read())
        if answer.get("FunctionError"):
            error = payload if isinstance(payload, dict) else {}
            return read_error(str(error.get("errorType", "")), str(error.get("errorMessage", payload)))
        return payload

    def _probe_durable(self, event: bytes) -> Any:
        """A durable execution of its own, waited for: its name is new, so it is not one of a call."""
        name = f"check-{uuid.uuid4().hex}"
        answer = self._clients.functions.invoke(
            InvocationType="Event", Payload=event, DurableExecutionName=name, **self._settings.named
        )
        ends_at = time.monotonic() + _PROBE_SECONDS
        while time.monotonic() < ends_at:
            read = self._clients.functions.get_durable_execution(DurableExecutionArn=answer["DurableExecutionArn"])
            if read["Status"] == "SUCCEEDED":
                return _parsed(read["Result"].encode())
            if read["Status"] != "RUNNING":
                error = read.get("Error") or {}
                return read_error(str(error.get("ErrorType", read["Status"])), str(error.get("ErrorMessage", "")))
            time.sleep(_PROBE_PAUSE_SECONDS)
        return Failure("timeout", "TimeoutError", f"no answer within {_PROBE_SECONDS:.0f} s")

    def _check_probe(self, payload: dict[str, Any]) -> None:
        from importlib.metadata import version

        ours, theirs = version("durable-monty-core"), str(payload["version"])
        if theirs.split(".")[:2] != ours.split(".")[:2]:
            self._say("error", f"the function has durable-monty-core {theirs}, the worker has {ours}", _PACKAGE)
        elif theirs != ours:
            self._say("warning", f"the function has durable-monty-core {theirs}, the worker has {ours}", _PACKAGE)
        else:
            signed = "signed" if payload.get("is_signed") else "unsigned"
            text = f"the function has durable-monty-core {theirs}, Python {payload.get('python')}, takes {signed} calls"
            self._say("info", text)
        for path, problem in payload["missing"].items():
            self._say("error", f"the function cannot run {path!r}: {problem}", _PACKAGE)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")

"""A Lambda service on this machine: real boto3 in front of it, real `awslambdaric` processes behind it.

It has Invoke (RequestResponse, Event), the two configurations that the executor reads, the Runtime API, the queue of
asynchronous events with retries and event age, SQS destinations, timeouts, crashes and the limits on sizes. Durable
executions are passed on to AWS' own local runner. What goes wrong in AWS goes wrong here on request: see `Fault`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import json
import queue
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from support.lambda_sandbox import Outcome, Sandbox
from support.small_http import Handler, Server

SYNC_LIMIT_BYTES = 6 * 1024 * 1024
ASYNC_LIMIT_BYTES = 1024 * 1024
RECORD_LIMIT_BYTES = 1024 * 1024
REGION = "us-east-1"
ACCOUNT = "123456789012"


class Fault(enum.Enum):
    """What happens to one Invoke."""

    THROTTLE = "429, with a header that says when to come again"
    ERROR = "500"
    LOSE_ANSWER = "the event is taken, and the connection is closed without an answer"
    LOSE_REQUEST = "the connection is closed, and the event is not taken"
    DROP = "the event is taken and never run"
    TWICE = "the event is delivered twice"


@dataclass
class Function:
    """A deployed Lambda function.

    Attributes:
        path: Where its code is: the task root, and more folders for its PYTHONPATH.
        timeout: Seconds; Lambda's default is 3.
        invoke_config: As `put_function_event_invoke_config` takes it; empty: none.
    """

    name: str
    path: str
    handler: str = "durable_monty_lambda.handler"
    timeout: float = 30.0
    concurrency: int = 2
    environment: dict[str, str] = field(default_factory=dict)
    invoke_config: dict[str, Any] = field(default_factory=dict)
    is_durable: bool = False


@dataclass
class Event:
    """One invocation that waits for a sandbox, or is in one."""

    id: str
    payload: bytes
    queued_at: float = field(default_factory=time.monotonic)
    invocations: int = 0
    done: queue.SimpleQueue[Outcome] | None = None


class Deployed:
    """A function with its sandboxes, each in a thread of its own that takes events from one queue."""

    def __init__(self, function: Function, service: LambdaService) -> None:
        self.function = function
        self.sandboxes = [Sandbox(function) for _ in range(function.concurrency)]
        self.events: queue.Queue[Event | None] = queue.Queue()
        self._service = service
        self._threads = [threading.Thread(target=self._work, args=(item,), daemon=True) for item in self.sandboxes]
        for thread in self._threads:
            thread.start()

    def run_now(self, payload: bytes) -> Outcome:
        """As RequestResponse."""
        event = Event(str(uuid.uuid4()), payload, done=queue.SimpleQueue())
        self.events.put(event)
        assert event.done is not None
        return event.done.get()

    def close(self) -> None:
        for _ in self._threads:
            self.events.put(None)
        for sandbox in self.sandboxes:
            sandbox.close()

    def _work(self, sandbox: Sandbox) -> None:
        while (event := self.events.get()) is not None:
            config = self.function.invoke_config
            if event.done is None and time.monotonic() - event.queued_at > config.get(
                "MaximumEventAgeInSeconds", 21600
            ):
                self._service.tell(self.function, event, Outcome(b"null"), "EventAgeExceeded")
                continue
            outcome = sandbox.run(event.id, event.payload)
            event.invocations += 1
            if outcome.error is None and len(outcome.payload) > SYNC_LIMIT_BYTES:
                outcome = Outcome.failed(
                    "Function.ResponseSizeTooLarge",
                    f"Response payload size ({len(outcome.payload)} bytes) exceeded maximum allowed payload size "
                    f"({SYNC_LIMIT_BYTES} bytes).",
                )
            self._service.invocations += 1
            if event.done is not None:
                event.done.put(outcome)
            elif outcome.error and event.invocations <= config.get("MaximumRetryAttempts", 2):
                self.events.put(event)
            else:
                self._service.tell(self.function, event, outcome, "RetriesExhausted" if outcome.error else "Success")


class LambdaService:
    """The service. Closing it ends every process that it has started.

    Args:
        sqs: A boto3 client for the destinations.
        runner_url: AWS' local runner, for durable functions.
        port: 0: any that is free.

    Attributes:
        faults: What happens to the next invocations, in order; nothing particular where it is empty.
        invocations: How often a sandbox has run an event to some end.
        undelivered: Records that did not fit the destination, which AWS tells of in a metric only.
    """

    def __init__(self, sqs: Any = None, runner_url: str | None = None, port: int = 0) -> None:
        self.sqs = sqs
        self.runner_url = runner_url
        self.faults: deque[Fault] = deque()
        self.credentials: set[str] | None = None
        self.invocations = 0
        self.requests: list[str] = []
        self.undelivered = 0
        self._deployed: dict[str, Deployed] = {}
        self._started: dict[str, tuple[bytes, str]] = {}
        self._lock = threading.Lock()
        self._server = Server(_api(self), port)
        self.url = self._server.url

    def deploy(self, function: Function) -> Deployed:
        self._deployed[function.name] = deployed = Deployed(function, self)
        return deployed

    def deployed(self, name: str) -> Deployed | None:
        return self._deployed.get(name)

    def close(self) -> None:
        self._server.close()
        for deployed in self._deployed.values():
            deployed.close()

    def next_fault(self) -> Fault | None:
        with self._lock:
            return self.faults.popleft() if self.faults else None

    def tell(self, function: Function, event: Event, outcome: Outcome, condition: str) -> None:
        """Send the record of an event that has ended to its destination."""
        kind = "OnSuccess" if condition == "Success" else "OnFailure"
        destination = function.invoke_config.get("DestinationConfig", {}).get(kind, {}).get("Destination")
        if destination is None or self.sqs is None:
            return
        record = {
            "version": "1.0",
            "timestamp": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "requestContext": {
                "requestId": event.id,
                "functionArn": f"{arn(function.name)}:$LATEST",
                "condition": condition,
                "approximateInvokeCount": event.invocations,
            },
            "requestPayload": json.loads(event.payload),
            "responseContext": {
                "statusCode": 200,
                "executedVersion": "$LATEST",
                **({"functionError": outcome.error} if outcome.error else {}),
            },
            "responsePayload": json.loads(outcome.payload or b"null"),
        }
        body = json.dumps(record)
        if len(body.encode()) > RECORD_LIMIT_BYTES:
            self.undelivered += 1
            return
        url = self.sqs.get_queue_url(QueueName=destination.rpartition(":")[2])["QueueUrl"]
        with contextlib.suppress(OSError):
            self.sqs.send_message(QueueUrl=url, MessageBody=body)

    def start_durable(self, deployed: Deployed, name: str, payload: bytes) -> str | None:
        """The ARN of the durable execution of this name, started now if there is none; None if it has another payload.

        The runner does not keep names apart; the service does.
        """
        with self._lock:
            if name in self._started:
                known_payload, known_arn = self._started[name]
                return known_arn if known_payload == payload else None
            body = {
                "AccountId": ACCOUNT,
                "FunctionName": deployed.function.name,
                "FunctionQualifier": "$LATEST",
                "ExecutionName": name,
                "ExecutionTimeoutSeconds": int(deployed.function.timeout),
                "ExecutionRetentionPeriodDays": 1,
                "InvocationId": str(uuid.uuid4()),
                "Input": payload.decode(),
            }
            status, answer = self.ask_runner("POST", "/start-durable-execution", json.dumps(body).encode())
            assert status < 300, answer
            started: str = json.loads(answer)["ExecutionArn"]
            self._started[name] = (payload, started)
            return started

    def ask_runner(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{self.runner_url}{path}", body or None, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def arn(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def _api(service: LambdaService) -> type[Handler]:
    """The public API."""

    class Api(Handler):
        def do_GET(self) -> None:
            service.requests.append(self.path)
            if self._is_for_runner():
                self._pass_on(b"")
            elif (deployed := self._function()) is not None:
                function = deployed.function
                if "/event-invoke-config" in self.path:
                    if not function.invoke_config:
                        text = f"The function {arn(function.name)}:$LATEST doesn't have an EventInvokeConfig"
                        self._fail(404, "ResourceNotFoundException", text)
                    else:
                        self._answer({"FunctionArn": f"{arn(function.name)}:$LATEST", **function.invoke_config})
                else:
                    config = {"FunctionName": function.name, "Timeout": int(function.timeout), "State": "Active"}
                    durable = {"DurableConfig": {"ExecutionTimeout": 60}} if function.is_durable else {}
                    self._answer({**config, "Runtime": "python3.13", "Handler": function.handler, **durable})

        def do_POST(self) -> None:
            body = self.body()
            service.requests.append(self.path)
            if self._is_for_runner():
                self._pass_on(body)
            elif (deployed := self._function()) is not None:
                self._invoke(deployed, body)

        def _is_for_runner(self) -> bool:
            return "/durable-executions" in self.path

        def _pass_on(self, body: bytes) -> None:
            status, answer = service.ask_runner(self.command, self.path, body)
            self.send(status, answer, {"Content-Type": "application/json"})

        def _function(self) -> Deployed | None:
            key = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
            if service.credentials is not None and key not in service.credentials:
                self._fail(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
                return None
            name = unquote(urlsplit(self.path).path.split("/functions/")[1].split("/")[0])
            deployed = service.deployed(name.rpartition(":function:")[2].partition(":")[0])
            if deployed is None:
                self._fail(404, "ResourceNotFoundException", f"Function not found: {arn(name)}")
            return deployed

        def _invoke(self, deployed: Deployed, body: bytes) -> None:
            kind = self.headers.get("X-Amz-Invocation-Type", "RequestResponse")
            fault = service.next_fault() if kind == "Event" else None
            limit = ASYNC_LIMIT_BYTES if kind == "Event" else SYNC_LIMIT_BYTES
            if fault is Fault.THROTTLE:
                self._fail(429, "TooManyRequestsException", "Rate Exceeded.", {"Retry-After": "0.2"})
            elif fault is Fault.ERROR:
                self._fail(500, "ServiceException", "An error occurred.")
            elif fault is Fault.LOSE_REQUEST:
                self.hang_up()
            elif len(body) > limit:
                text = f"{len(body)} byte payload is too large for the {kind} invocation type (limit {limit} bytes)"
                self._fail(413, "RequestTooLargeException", text)
            elif kind == "Event":
                self._take(deployed, body, fault)
            else:
                self._run(deployed, body)

        def _take(self, deployed: Deployed, body: bytes, fault: Fault | None) -> None:
            request_id = str(uuid.uuid4())
            headers = {"x-amzn-RequestId": request_id}
            name = self.headers.get("X-Amz-Durable-Execution-Name")
            if deployed.function.is_durable:
                started = service.start_durable(deployed, name or request_id, body)
                if started is None:
                    self._fail(409, "DurableExecutionAlreadyStartedException", f"{name} has another payload")
                    return
                headers["X-Amz-Durable-Execution-Arn"] = started
            else:
                for _ in range({Fault.DROP: 0, Fault.TWICE: 2}.get(fault, 1) if fault else 1):
                    deployed.events.put(Event(request_id, body))
            if fault is Fault.LOSE_ANSWER:
                self.hang_up()
            else:
                self.send(202, b"", headers)

        def _run(self, deployed: Deployed, body: bytes) -> None:
            outcome = deployed.run_now(body)
            headers = {"x-amzn-RequestId": str(uuid.uuid4()), "Content-Type": "application/json"}
            if outcome.error:
                headers["X-Amz-Function-Error"] = outcome.error
            self.send(200, outcome.payload, headers)

        def _answer(self, value: Any) -> None:
            self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _fail(self, status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> None:
            body = json.dumps({"Type": "User", "message": message, "Message": message}).encode()
            more = {"x-amzn-ErrorType": kind, "Content-Type": "application/json", "x-amzn-RequestId": str(uuid.uuid4())}
            self.send(status, body, {**more, **(headers or {})})

    return Api

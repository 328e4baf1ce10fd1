"""Starting calls: the event of each, and what Lambda's answer to it means."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError

from durable_monty.models import Accepted, Call, Refused
from durable_monty_lambda import events
from durable_monty_lambda.clients import NOT_SENT, THROTTLED, Clients, code_of, retry_after, status_of
from durable_monty_lambda.payloads import Payloads
from durable_monty_lambda.settings import LambdaSettings

log = logging.getLogger(__name__)

_THROTTLED_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
_MISCONFIGURED_SECONDS = 15.0
_MAX_NAME_CHARACTERS = 64


class Unreachable(Exception):
    """Nothing of a whole batch has reached AWS; all of it is submitted again later."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is stored of an accepted call: when it was sent, and by what name Lambda knows it.

    Attributes:
        name: The request id; of a durable execution its ARN; empty if Lambda's answer was lost.
    """

    sent_at: float
    name: str = ""

    def __str__(self) -> str:
        return f"{math.ceil(self.sent_at)} {self.name}"

    @classmethod
    def read(cls, text: str | None) -> Token | None:
        """The token of `str(token)`; None if there is none."""
        sent_at, _, name = (text or "").partition(" ")
        return cls(float(sent_at), name) if sent_at.isdecimal() else None


class Invoker:
    """Invokes the Lambda function, once for each call and never twice behind our back."""

    def __init__(self, clients: Clients, settings: LambdaSettings, payloads: Payloads) -> None:
        self._clients = clients
        self._settings = settings
        self._payloads = payloads

    def submit(self, call: Call) -> Accepted | Refused | Unreachable:
        """Start one call. `Unreachable` is returned, not raised: what it means depends on the rest of the batch."""
        try:
            event = self._event(call)
        except (BotoCoreError, ClientError) as error:
            return Refused(call.job_id, f"its arguments were not stored in S3: {error}", _AGAIN_SECONDS)
        if isinstance(event, Refused):
            return event
        return self._invoke(call, event)

    def _event(self, call: Call) -> bytes | Refused:
        if self._settings.event_format == "plain":
            event = _plain_event(call)
            size = events.size_bytes(event) + events.RECORD_BYTES
            return events.dumped(event) if size <= events.MAX_EVENT_BYTES else _too_large(call, size)
        event = {"job_id": call.job_id, "envelope": call.envelope.decode()}
        if call.timeout_seconds is not None:
            event["timeout_seconds"] = call.timeout_seconds
        reply_to = self._payloads.pointer(call.job_id, "reply")
        if reply_to is not None:
            event["reply_to"] = reply_to.to_dict()
        size = events.size_bytes(event) + events.RECORD_BYTES
        request = self._payloads.pointer(call.job_id, "request")
        if request is not None and size > self._settings.max_inline_bytes:
            self._payloads.put(request, call.envelope)
            del event["envelope"]
            event["envelope_s3"] = request.to_dict()
            size = events.size_bytes(event) + events.RECORD_BYTES
        if size > events.MAX_EVENT_BYTES:
            return _too_large(call, size)
        # The record of the function's destination holds request and answer together.
        event["max_reply_bytes"] = events.MAX_EVENT_BYTES - size
        return events.dumped(event)

    def _invoke(self, call: Call, event: bytes) -> Accepted | Refused | Unreachable:
        settings = self._settings
        options: dict[str, Any] = {**settings.named, "InvocationType": "Event", "Payload": event}
        if settings.durable:
            options["DurableExecutionName"] = execution_name(call.job_id)
        sent_at = time.time()
        try:
            answer = self._clients.invoking.invoke(**options)
        except ClientError as error:
            return self._refused(call, error)
        except (*NOT_SENT, ParamValidationError) as error:
            return Unreachable(f"invoking {settings.function_name!r}: {error}")
        except (HTTPClientError, BotoCoreError) as error:
            return self._in_doubt(call, sent_at, error)
        name = answer.get("DurableExecutionArn") or answer["ResponseMetadata"].get("RequestId", "")
        return Accepted(call.job_id, str(Token(sent_at, name)))

    def _in_doubt(self, call: Call, sent_at: float, error: Exception) -> Accepted | Refused:
        """The event was sent and no answer came: Lambda may have it."""
        is_resubmitted = self._settings.durable or self._settings.in_doubt == "resubmit"
        log.warning(
            "an invoke had no answer, the call is %s: %s",
            "submitted again" if is_resubmitted else "waited for",
            error,
            extra={"job_id": call.job_id},
        )
        if is_resubmitted:
            return Refused(call.job_id, f"Lambda did not answer: {error}", _AGAIN_SECONDS)
        return Accepted(call.job_id, str(Token(sent_at)))

    def _refused(self, call: Call, error: ClientError) -> Accepted | Refused:
        code, status = code_of(error), status_of(error)
        name = self._settings.function_name
        if code in THROTTLED or status == 429:
            return Refused(call.job_id, f"Lambda throttles: {error}", retry_after(error) or _THROTTLED_SECONDS)
        if code in ("RequestTooLargeException", "SerializedRequestEntityTooLargeException") or status == 413:
            return Refused(call.job_id, f"its event is too large for Lambda: {error}; pass a reference to the data")
        if code == "DurableExecutionAlreadyStartedException":
            return self._already_started(call, error)
        if status >= 500:
            return Refused(call.job_id, f"Lambda answered {status}: {error}", retry_after(error) or _AGAIN_SECONDS)
        # A mistake of whoever set the account up: calls wait until it is put right.
        log.warning("invoking %r was refused, its calls wait: %s", name, error, extra={"job_id": call.job_id})
        return Refused(
            call.job_id, f"invoking {name!r}: {error}; run `durable-monty executors check`", _MISCONFIGURED_SECONDS
        )

    def _already_started(self, call: Call, error: ClientError) -> Accepted | Refused:
        """The same attempt was started with another payload: before settings of the executor were changed."""
        name = execution_name(call.job_id)
        try:
            arn = self.find(name)
        except (BotoCoreError, ClientError) as problem:
            return Refused(call.job_id, f"looking for the durable execution {name!r}: {problem}", _AGAIN_SECONDS)
        if arn is None:
            return Refused(
                call.job_id, f"Lambda knows the durable execution {name!r} and does not list it: {error}", 5.0
            )
        return Accepted(call.job_id, str(Token(time.time(), arn)))

    def find(self, name: str) -> str | None:
        """The ARN of the durable execution of this name, or None.

        Raises:
            BotoCoreError, ClientError: Lambda does not answer, or refuses.
        """
        answer = self._clients.functions.list_durable_executions_by_function(
            **self._settings.named, DurableExecutionName=name, MaxItems=10
        )
        found = [item for item in answer.get("DurableExecutions", ()) if item.get("DurableExecutionName") == name]
        return found[0]["DurableExecutionArn"] if found else None


def execution_name(job_id: str) -> str:
    """The name of a job's durable execution: the job id, shortened where Lambda wants that."""
    if len(job_id) <= _MAX_NAME_CHARACTERS:
        return job_id
    digest = hashlib.sha256(job_id.encode()).hexdigest()[:32]
    return f"{job_id[: _MAX_NAME_CHARACTERS - 33]}-{digest}"


def _plain_event(call: Call) -> dict[str, Any]:
    args, kwargs = json.loads(call.arguments)
    return {
        "job_id": call.job_id,
        "execution_id": call.execution_id,
        "call_id": call.call_id,
        "function_name": call.function_name,
        "args": args,
        **({"kwargs": kwargs} if kwargs else {}),
    }


def _too_large(call: Call, size: int) -> Refused:
    return Refused(
        call.job_id,
        f"its event takes {size} bytes, an asynchronous invocation carries {events.MAX_EVENT_BYTES}; pass a reference to "
        "the data, or set payload_bucket of the executor",
    )

"""What Lambda's words about the end of an invocation mean to us. Pure; nothing is fetched here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from durable_monty import codec
from durable_monty.envelope import encode_value
from durable_monty.errors import DecodeError
from durable_monty.models import Failure, parse_job_id
from durable_monty_lambda.events import Pointer

_NOT_DEPLOYED = ("Runtime.ImportModuleError", "Runtime.HandlerNotFound", "Runtime.UserCodeSyntaxError")
_TOO_LARGE = ("Function.ResponseSizeTooLarge", "Runtime.MarshalError", "Runtime.TruncatedResponse")
_KILLED = ("Runtime.ExitError", "Runtime.OutOfMemory", "Runtime.Unknown")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the function's destination.

    Attributes:
        job_id: The job that the event was for.
        end: A reply, the address of one in S3, or a failure.
        request: The address of the request in S3, or None.
    """

    job_id: str
    end: bytes | Pointer | Failure
    request: Pointer | None = None


def read_record(body: str) -> Record | None:
    """The record in a message of the results queue; None if it is not one of a call of ours."""
    try:
        record = json.loads(body)
        request, context = record["requestPayload"], record["requestContext"]
        job_id = str(request["job_id"])
        parse_job_id(job_id)
        response = record.get("responseContext") or {}
        end = _end(job_id, str(context["condition"]), response, record.get("responsePayload"))
        return Record(job_id, end, Pointer.read(request.get("envelope_s3")))
    except (ValueError, KeyError, TypeError, AttributeError):
        # Whoever may write to the queue can write anything; nothing of it must keep the other records waiting.
        return None


def read_answer(job_id: str, answer: Any) -> bytes | Pointer | Failure:
    """What the handler returned."""
    if isinstance(answer, dict):
        if isinstance(answer.get("reply"), str):
            return bytes(answer["reply"], "utf-8")
        pointer = Pointer.read(answer.get("reply_s3"))
        if pointer is not None:
            return pointer
        if "result" in answer:
            return _plain_result(job_id, answer["result"])
    return Failure(
        "undecodable",
        "DecodeError",
        f"the Lambda function answered {answer!r:.200}, which is no reply; its handler must be "
        "durable_monty_lambda.handler",
    )


def read_error(kind: str, message: str, trace: Any = ()) -> Failure:
    """What an error of the invocation means.

    Args:
        kind: Lambda's `errorType`.
        trace: Lambda's `stackTrace`: lines, or nothing.
    """
    shown = "".join(line if str(line).endswith("\n") else f"{line}\n" for line in trace or ())
    if kind == "Sandbox.Timedout" or "Task timed out after" in message:
        return Failure("timeout", "TimeoutError", message, shown)
    if kind in _NOT_DEPLOYED:
        text = f"{message}; build the package anew with `durable-monty lambda package` and deploy it"
        return Failure("refused", kind, text, shown)
    if kind in _TOO_LARGE:
        return Failure("undecodable", kind, f"{message}; return less, or set payload_bucket of the executor", shown)
    if kind in _KILLED or "Runtime exited" in message:
        hint = "; it was killed: is the function's memory too small?" if "killed" in message else ""
        return Failure("lost", kind or "Runtime.ExitError", f"{message}{hint}", shown)
    return Failure("user", kind.rpartition(".")[2] or "Exception", message, shown, ("Exception",))


def _end(job_id: str, condition: str, response: dict[str, Any], payload: Any) -> bytes | Pointer | Failure:
    if condition == "EventAgeExceeded":
        text = "the event was too old before the Lambda function had room for it; raise its concurrency or event age"
        return Failure("unavailable", "EventAgeExceeded", text)
    if isinstance(payload, dict) and ("errorType" in payload or "errorMessage" in payload):
        kind, message = str(payload.get("errorType", "")), str(payload.get("errorMessage", ""))
        if response.get("functionError") or condition != "Success":
            return read_error(kind, message, payload.get("stackTrace"))
    if response.get("functionError"):
        return read_error("", json.dumps(payload))
    if condition != "Success":
        status = response.get("statusCode")
        return Failure("unavailable", str(condition), f"Lambda gave the event up with status {status}")
    return read_answer(job_id, payload)


def _plain_result(job_id: str, value: Any) -> bytes | Failure:
    """The reply that stands for what a handler of the user's own returned."""
    try:
        return encode_value(job_id, codec.dumps(codec.loads(json.dumps(value)), path="result"), None)
    except DecodeError as error:
        return Failure("undecodable", "DecodeError", str(error))

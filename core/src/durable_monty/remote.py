"""The remote side: all that a machine runs to execute a call, whatever the executor.

`run` takes an envelope and gives a reply, bytes both ways. It needs nothing but this distribution's standard-library
part: no database, no sandbox, no third-party package.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from durable_monty import codec, convert, functions
from durable_monty.envelope import (
    Envelope,
    decode_envelope,
    decode_reply,
    encode_envelope,
    encode_failure,
    encode_value,
)
from durable_monty.errors import DecodeError, EncodeError, FunctionError, SignatureMismatch, StoreError
from durable_monty.heartbeats import Heartbeats
from durable_monty.models import Failure, parse_job_id
from durable_monty.signing import KEY_VARIABLE as KEY_VARIABLE
from durable_monty.signing import SigningKey, from_environment

log = logging.getLogger(__name__)

_configured_key: bytes | None = None


def configure(
    *, signing_key: bytes | None = None, allow: Iterable[str] = (), previous_signing_keys: Iterable[bytes] = ()
) -> None:
    """Set up this process to run calls; what is not given is read from the environment.

    Args:
        signing_key: Refuse envelopes that are not signed with it, and sign replies. Environment:
            `DURABLE_MONTY_SIGNING_KEY`.
        allow: Patterns of dotted paths of functions that may run. Environment: `DURABLE_MONTY_FUNCTIONS`.
        previous_signing_keys: Accept envelopes that are signed with these as well. Environment:
            `DURABLE_MONTY_PREVIOUS_SIGNING_KEYS`, with commas between them.
    """
    global _configured_key
    previous = tuple(previous_signing_keys)
    _configured_key = SigningKey(signing_key, previous) if signing_key is not None and previous else signing_key
    functions.set_allowed(allow)


def signing_key() -> bytes | None:
    """The key of this process, or None; a `durable_monty.signing.SigningKey` if others are accepted besides it."""
    return _configured_key if _configured_key is not None else from_environment()


class Transaction(Protocol):
    """A database transaction that a function may write in, and that also records the outcome of its call."""

    def connect(self) -> Any:
        """The connection; begins the transaction at the first call."""

    def settle(self, value_text: str) -> bool:
        """Record the value and commit; False if it was never begun, or is rolled back because the attempt is late."""

    def abandon(self) -> None:
        """Roll back, if it was begun and is not committed."""


def run(
    envelope: bytes | str, heartbeat: Callable[[bytes], None] | None = None, transaction: Transaction | None = None
) -> bytes:
    """Execute the call in `envelope` and return its reply.

    Never raises for anything that the function does: what it raises, `SystemExit` included, is a reply with a
    `Failure`. Only `KeyboardInterrupt` passes. An `async def` function is run to its end on an event loop of its own.

    Args:
        heartbeat: Takes the bytes of each sign of life to the executor, which hands them to the core in a `Heartbeat`;
            called from any thread. None: there are none.
        transaction: What `current_call().connection` is of; None: the database is not in reach.
    """
    key = signing_key()
    opened = _open(envelope, key)
    if isinstance(opened, bytes):
        return opened
    call, function = opened
    running = _Running(call, key, heartbeat, transaction)
    try:
        args, kwargs = convert.bind(function.__wrapped__, call.args, call.kwargs)
        value = function.__wrapped__(*args, **kwargs)
        if function.is_async:
            value = functions.run_to_end(value)
        return running.reply(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit() of a function is its failure, not the machine's
        return running.failure(error)
    finally:
        running.end()


async def run_async(
    envelope: bytes | str, heartbeat: Callable[[bytes], None] | None = None, transaction: Transaction | None = None
) -> bytes:
    """As `run`, for an executor that has an event loop; the function must be an `async def` one.

    Cancelling it cancels the function.
    """
    key = signing_key()
    opened = _open(envelope, key)
    if isinstance(opened, bytes):
        return opened
    call, function = opened
    running = _Running(call, key, heartbeat, transaction)
    import asyncio

    try:
        args, kwargs = convert.bind(function.__wrapped__, call.args, call.kwargs)
        return running.reply(await function.__wrapped__(*args, **kwargs))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit() of a function is its failure, not the machine's
        return running.failure(error)
    finally:
        running.end()


class _Running:
    """One attempt while it runs: what its function can ask about it, and what is to be tidied up after it."""

    def __init__(
        self,
        call: Envelope,
        key: bytes | None,
        send: Callable[[bytes], None] | None,
        transaction: Transaction | None,
    ) -> None:
        self._call = call
        self._key = key
        self._transaction = transaction
        self._heartbeats = Heartbeats(call.job_id, send, key) if send is not None else None
        self._has_failed = True
        if self._heartbeats is not None and call.is_watched:
            self._heartbeats.begin()
        execution_id, call_id, attempt = parse_job_id(call.job_id)
        current = functions.CurrentCall(
            execution_id,
            call_id,
            attempt,
            call.job_id,
            call.progress,
            self._heartbeats.beat if self._heartbeats is not None else None,
            transaction.connect if transaction is not None else None,
            trace_context=call.trace_context,
        )
        self._token = functions.current.set(current)

    def reply(self, value: Any) -> bytes:
        """The reply of a function that has returned; its transaction, if there is one, is committed."""
        try:
            text = codec.dumps(convert.plain(value), path="result")
        except EncodeError as error:
            return encode_failure(self._call.job_id, Failure("undecodable", "TypeError", str(error)), self._key)
        try:
            if self._transaction is not None:
                self._transaction.settle(text)
        except StoreError as error:
            # If it was committed after all, another attempt comes too late.
            return encode_failure(self._call.job_id, Failure("lost", type(error).__name__, str(error)), self._key)
        self._has_failed = False
        return encode_value(self._call.job_id, text, self._key)

    def failure(self, error: BaseException) -> bytes:
        """The reply of a function that has raised."""
        return encode_failure(self._call.job_id, user_failure(error), self._key)

    def end(self) -> None:
        """Whatever came of it."""
        if self._transaction is not None:
            self._transaction.abandon()
        if self._heartbeats is not None:
            self._heartbeats.end(has_failed=self._has_failed)
        functions.current.reset(self._token)


def is_async(function_name: str) -> bool:
    """Whether `function_name` is an `async def` function that may run here; False if it cannot be had."""
    try:
        return functions.resolve(function_name).is_async
    except FunctionError:
        return False


def make_envelope(
    function: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    job_id: str,
    attempt: int | None = None,
    trace_context: str | None = None,
) -> bytes:
    """An envelope for `run`, as the core makes them; for tests and for tools around an executor.

    Args:
        function: Dotted path.
        job_id: `<execution_id>-<call_id>-<attempt>`; with `attempt` given, `<execution_id>-<call_id>` is enough.
        trace_context: What the function finds in `current_call().trace_context`.

    Raises:
        EncodeError: An argument cannot be carried.
        ValueError: The job id is not one.
    """
    if attempt is not None and not job_id.endswith(f"-{attempt}"):
        job_id = f"{job_id}-{attempt}"
    parse_job_id(job_id)
    args_text = codec.dumps(convert.plain(list(args)), path="args")
    kwargs_text = codec.dumps(convert.plain(dict(kwargs or {})), path="kwargs")
    arguments = f"[{args_text},{kwargs_text}]"
    return encode_envelope(
        job_id, functions.normalized(function), arguments, signing_key(), trace_context=trace_context
    )


@dataclass(frozen=True, slots=True)
class ReadReply:
    """A reply, decoded: a value, or a failure."""

    job_id: str
    value: Any = None
    failure: Failure | None = None


def read_reply(reply: bytes | str) -> ReadReply:
    """What `run` returned, decoded.

    Raises:
        SignatureMismatch: A signing key is configured here and the reply is not signed with it.
        DecodeError: It is not a reply.
    """
    read = decode_reply(reply, signing_key())
    value = None if read.value_text is None else codec.loads(read.value_text)
    return ReadReply(read.job_id, value, read.failure)


def user_failure(error: BaseException) -> Failure:
    """The failure that stands for what a function raised, its traceback without our own frames."""
    import traceback

    kind = type(error)
    try:
        shown = "".join(traceback.format_exception(kind, error, _user_part(error.__traceback__)))
    except Exception as problem:  # noqa: BLE001 - `__str__` and the like are the user's; a chain can be endless
        shown = f"(the traceback cannot be had: {type(problem).__name__})"
    bases = tuple(base.__name__ for base in kind.__mro__[1:] if base is not object)
    return Failure("user", kind.__name__, _message(error), shown, bases)


def _open(envelope: bytes | str, key: bytes | None) -> tuple[Envelope, functions.Function[Any]] | bytes:
    """The call and its function, or the reply that says why there is none."""
    try:
        call = decode_envelope(envelope, key)
    except SignatureMismatch as error:
        log.warning("envelope refused: its signature is missing or wrong")
        return encode_failure(_claimed_job_id(envelope), Failure("refused", "SignatureMismatch", str(error)), key)
    except DecodeError as error:
        return encode_failure(_claimed_job_id(envelope), Failure("undecodable", "DecodeError", str(error)), key)
    try:
        parse_job_id(call.job_id)
    except ValueError as error:
        return encode_failure(call.job_id, Failure("undecodable", "DecodeError", str(error)), key)
    try:
        return call, functions.resolve(call.function)
    except FunctionError as error:
        return encode_failure(call.job_id, Failure("refused", type(error).__name__, str(error)), key)


def _claimed_job_id(envelope: bytes | str) -> str:
    """The job id that an envelope which is not trusted claims to be for; only good for addressing a refusal."""
    try:
        return decode_envelope(envelope, None).job_id
    except DecodeError:
        return ""


def _message(error: BaseException) -> str:
    if len(error.args) == 1 and isinstance(error.args[0], str):
        return error.args[0]
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001 - __str__ is the user's
        return f"(its text cannot be had: {type(problem).__name__})"


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not ours; all of it if every frame is."""
    part = trace
    while part is not None and part.tb_frame.f_globals.get("__name__") in (__name__, convert.__name__):
        part = part.tb_next
    return part or trace

"""The service: starting executions, looking at them, and ending their calls by hand."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from durable_monty import codec, config, convert
from durable_monty.config import Config
from durable_monty.envelope import encode_envelope
from durable_monty.errors import (
    CallEnded,
    CallNotFound,
    ExecutionConflict,
    ExecutionEnded,
    ExecutionFailed,
    ExecutionNotEnded,
    InputError,
    WorkflowCheckError,
)
from durable_monty.interpreter import check_source
from durable_monty.interpreter.operations import MAX_NAME_CHARACTERS
from durable_monty.models import Call, CallStatus, ExecutionStatus, Failure, job_id_of
from durable_monty.program import Program, prepare
from durable_monty.records import CallKind, CallRow, ExecutionRow, Settlement
from durable_monty.remote import user_failure
from durable_monty.runtime import Runtime
from durable_monty.signals import check_payload
from durable_monty.store import Store, failure_text, init_db
from durable_monty.workflows import Workflow

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_SEED_STATUSES = {
    ExecutionStatus.SCHEDULED: "pending",
    ExecutionStatus.RUNNING: "pending",
    ExecutionStatus.WAITING: "pending",
}
_FIRST_WAIT_SECONDS = 0.005
_LAST_WAIT_SECONDS = 0.25


class OrchestratorService:
    """Everything one can ask of the executions in a database. Safe to use from several threads.

    Args:
        store: What `init_db` returned, or the URL of a database.
        configuration: The configuration; None: read as the command line reads it.

    Raises:
        ConfigError: The configuration or the URL cannot be used.
        StoreUnreachable: The database cannot be opened.
    """

    def __init__(self, store: Store | str, configuration: Config | None = None) -> None:
        chosen = config.load() if configuration is None else configuration
        opened = init_db(store, synchronous=chosen.store.synchronous) if isinstance(store, str) else store
        self.runtime = Runtime(opened, chosen)
        self._checked: set[str] = set()

    # Starting

    def start_execution(
        self,
        workflow: str | Workflow[..., Any],
        external_functions: Iterable[Callable[..., Any] | str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        *,
        execution_id: str | None = None,
        check: bool = True,
        filename: str = "<workflow>",
        workflows: Iterable[Workflow[..., Any]] = (),
        deadline_seconds: float | None = None,
    ) -> str:
        """Store a new execution; a worker runs it.

        Starting again with an id that exists, the same workflow and the same inputs, does nothing.

        Args:
            workflow: A `@workflow` function, or source text with top-level `await`.
            external_functions: The host functions it may call: callables or dotted paths. None: those that the
                `@workflow` function names. They are registered in this process.
            inputs: Global names of source text, or arguments of a `@workflow` function.
            execution_id: 1 to 100 letters, digits, `-` and `_`; None: a new one.
            check: Whether to type-check the workflow against the signatures of its host functions first.
            filename: What tracebacks call source text.
            workflows: The workflows that it may start as children, besides those that a `@workflow` function names.

        Returns:
            The execution's id.

        Raises:
            WorkflowCheckError: The check found problems; each names line and column.
            WorkflowError: The workflow's source cannot be taken.
            InputError: Inputs are missing, are none of this workflow's, or cannot be encoded.
            FunctionError: A host function does not exist or has no name.
            ExecutionConflict: The id is taken by an execution of another workflow or with other inputs.
            ValueError: The id has characters that it may not have.
        """
        id_ = uuid.uuid4().hex if execution_id is None else _checked_id(execution_id)
        given = dict(inputs or {})
        program = prepare(workflow, external_functions, given, filename, workflows)
        text = _encoded_inputs(program.record.name, given)
        checked_at = self._check(program) if check else None
        for child in program.children.values() if check else ():
            self._check(child)
        now = self.runtime.clock()
        row = ExecutionRow(id_, program.record.digest, ExecutionStatus.SCHEDULED, 0, text, created_at=now, wake_at=now)
        row.deadline_at = None if deadline_seconds is None else now + deadline_seconds
        children = [child.record for child in program.children.values()]
        existing = self.runtime.store.start(row, program.record, checked_at, children)
        if existing is None:
            self.runtime.want_look()
            return id_
        differs = [
            what
            for what, is_same in (
                ("another workflow", existing.workflow == row.workflow),
                ("other inputs", existing.inputs == row.inputs),
            )
            if not is_same
        ]
        if differs:
            raise ExecutionConflict(
                f"starting execution {id_!r}: it exists with {' and '.join(differs)}; choose another "
                "id, or start it with what it was started with"
            )
        return id_

    def _check(self, program: Program) -> float:
        """The check at submit, once per workflow; returns when it passed."""
        digest = program.record.digest
        now = self.runtime.clock()
        if digest in self._checked:
            return now
        found = list(program.findings)
        if not self.runtime.store.is_checked(digest):
            at = {(problem.line, problem.column) for problem in found}
            found += [
                problem
                for problem in check_source(
                    self.runtime.interpreter, program.check_source, program.check_lines, program.stubs
                )
                if (problem.line, problem.column) not in at
            ]
        if found:
            found.sort(key=lambda problem: (problem.line, problem.column))
            raise WorkflowCheckError(program.record.name, found)
        self._checked.add(digest)
        return now

    # Advancing by hand

    def process_execution(self, execution_id: str) -> dict[str, Any]:
        """Run one turn: the first, or one that delivers every outcome that has not been delivered.

        New calls are stored as `pending`, for a worker or for `complete_call`. Does nothing to an execution that has
        ended or is in another process's hands.

        Returns:
            As `get_execution`.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        row = self.runtime.store.execution(execution_id)
        if not row.status.is_terminal:
            self.runtime.lease.renew()
            self.runtime.engine.advance_one(execution_id)
            if self.runtime.has_worker:
                self.runtime.want_look()
            else:
                self.runtime.engine.release_all()
        return self.get_execution(execution_id)

    def poll(self, execution_id: str | None = None) -> Any:
        """Deliver what can be delivered, and report.

        Args:
            execution_id: This one; None: every execution that waits, as a list.

        Returns:
            `execution_id`, `status` (`pending`, `completed`, `failed`, `cancelled` or `paused`), `output` and
            `pending_calls`, the calls without an outcome.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        if execution_id is None:
            waiting = self.runtime.store.executions(ExecutionStatus.WAITING.value, limit=10_000)
            return [self.poll(row.id) for row in waiting]
        if self.runtime.store.has_undelivered(execution_id):
            self.process_execution(execution_id)
        row = self.runtime.store.execution(execution_id)
        pending = [] if row.status.is_terminal else self._open_calls(execution_id)
        return {
            "execution_id": execution_id,
            "status": _SEED_STATUSES.get(row.status, row.status.value),
            "output": codec.loads(row.output) if row.output is not None else None,
            "pending_calls": [
                {"call_id": call.call_id, "function_name": call.function_name, "args": call.args, "kwargs": call.kwargs}
                for call in pending
            ],
        }

    # Looking

    def get_execution(self, execution_id: str) -> dict[str, Any]:
        """What is known about an execution.

        Returns:
            `execution_id`, `workflow`, `status`, `inputs`, `output` (the value, once completed), `error` (the
            workflow's traceback, then the call's, once failed), `note`, and the times `created_at`, `started_at`,
            `ended_at` in seconds since the epoch.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        return self._described(self.runtime.store.execution(execution_id))

    def get_result(self, execution_id: str) -> Any:
        """The value that the workflow returned.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionNotEnded: It has not ended.
            ExecutionFailed: It failed or was cancelled; the text holds the traceback.
        """
        row = self.runtime.store.execution(execution_id)
        if row.status is ExecutionStatus.COMPLETED:
            return codec.loads(row.output or "null")
        if row.status.is_terminal:
            raise ExecutionFailed(f"the result of execution {execution_id!r}: it {_ended_how(row)}:\n{row.error or ''}")
        raise ExecutionNotEnded(
            f"the result of execution {execution_id!r}: it is {row.status.value}; wait for its end with `wait`, or run "
            "a worker"
        )

    def list_executions(self, status: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Executions as `get_execution` describes them, the newest first.

        Raises:
            ValueError: There is no such status.
        """
        chosen = ExecutionStatus(status).value if status is not None else None
        return [self._described(row) for row in self.runtime.store.executions(chosen, limit)]

    def get_pending_calls(self, execution_id: str) -> list[Call]:
        """The calls of host functions that have no outcome, in the order in which they were made.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        self.runtime.store.execution(execution_id)
        return self._open_calls(execution_id)

    def wait(self, execution_id: str, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Wait until an execution has ended or is paused; runs nothing itself.

        Returns:
            As `get_execution`.

        Raises:
            ExecutionNotFound: No execution has this id.
            TimeoutError: It has not ended within `timeout_seconds`.
        """
        ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause = _FIRST_WAIT_SECONDS
        while True:
            row = self.runtime.store.execution(execution_id)
            if row.status.is_terminal or row.status is ExecutionStatus.PAUSED:
                return self._described(row)
            if ends_at is not None and time.monotonic() + pause > ends_at:
                raise TimeoutError(
                    f"waiting for execution {execution_id!r}: it is still {row.status.value} after {timeout_seconds} s"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_WAIT_SECONDS)

    # Ending calls and executions by hand

    def complete_call(self, execution_id: str, call_id: int, result: Any, *, attempt: int | None = None) -> None:
        """Give a call its value; the execution can then be advanced.

        Args:
            attempt: The attempt that gave the value; None: the current one.

        Raises:
            ExecutionNotFound: No execution has this id.
            CallNotFound: It has no such call.
            CallEnded: The call has an outcome, or another attempt has begun.
            EncodeError: The value cannot be carried.
        """
        call = self._open_call("completing", execution_id, call_id, attempt)
        text = codec.dumps(convert.plain(result), path="result")
        self._settle(execution_id, call, CallStatus.COMPLETED, text)

    def fail_call(
        self, execution_id: str, call_id: int, error: BaseException | Failure | str, *, attempt: int | None = None
    ) -> None:
        """Let a call fail; the function's retry policy decides whether another attempt follows.

        Args:
            error: What the workflow sees: an exception of the same type, or a `RuntimeError` with this text.
            attempt: The attempt that failed; None: the current one.

        Raises:
            ExecutionNotFound: No execution has this id.
            CallNotFound: It has no such call.
            CallEnded: The call has an outcome, or another attempt has begun.
        """
        call = self._open_call("failing", execution_id, call_id, attempt)
        failure = _failure(error)
        runtime = self.runtime
        workflow = runtime.store.workflow(runtime.store.execution(execution_id).workflow)
        following = runtime.planner.next_attempt(execution_id, call, failure, workflow, runtime.clock())
        if following is not None:
            runtime.engine.reattempt([following])
            runtime.want_look()
            return
        status = CallStatus.CANCELLED if failure.kind == "cancelled" else CallStatus.FAILED
        self._settle(execution_id, call, status, failure_text(failure))

    def cancel(self, execution_id: str, reason: str | None = None, deadline_seconds: float = 60.0) -> None:
        """Ask for the end of an execution.

        One that has not begun is cancelled at once. In a running one every `await` raises a `BaseException`, which
        `except Exception` does not see, once, so that `finally` blocks run; what has not ended by the deadline is
        ended by force. Asking again while it is being cancelled does nothing.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionEnded: It has ended.
        """
        now = self.runtime.clock()
        before = self.runtime.store.request_cancel(
            execution_id, reason or "cancelled on request", now + deadline_seconds, now
        )
        if before.status.is_terminal:
            raise ExecutionEnded(f"cancelling execution {execution_id!r}: it {_ended_how(before)} already")
        self.runtime.want_look()

    def pause(self, execution_id: str, reason: str | None = None) -> None:
        """Keep an execution from going on until `resume`.

        Its open calls go on; their outcomes wait, and so do signals. Pausing a paused execution does nothing.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionEnded: It has ended.
        """
        self._require_alive("pausing", self.runtime.store.pause(execution_id, reason))

    def resume(self, execution_id: str) -> None:
        """Let a paused execution go on; does nothing to one that is not paused.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionEnded: It has ended.
        """
        self._require_alive("resuming", self.runtime.store.resume(execution_id, self.runtime.clock()))
        self.runtime.want_look()

    def retry(self, execution_id: str) -> None:
        """Let a failed execution go on from its last snapshot, as if its last turn had not happened.

        The call whose failure ended it is made again, as its next attempt; nothing that was delivered before is. A
        deadline that it had is dropped.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionConflict: It has not failed.
        """
        before = self.runtime.store.retry(execution_id, self.runtime.clock())
        if before.status is not ExecutionStatus.FAILED:
            raise ExecutionConflict(
                f"retrying execution {execution_id!r}: it is {before.status.value}; only a failed one can be retried"
            )
        self.runtime.want_look()

    # Signals, and what an execution tells

    def signal(self, execution_id: str, name: str, payload: Any = None) -> None:
        """Send a signal; it is kept until the execution waits for one of this name, in the order of sending.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionEnded: It has ended; nothing was stored.
            SignalRefused: The execution waits for this signal with a payload of another type; nothing was stored.
            EncodeError: The payload cannot be carried.
            ValueError: The name is empty or too long.
        """
        if not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise ValueError(
                f"sending a signal to {execution_id!r}: its name has {len(name)} characters; it must have 1 to "
                f"{MAX_NAME_CHARACTERS}"
            )
        plain = convert.plain(payload)
        text = codec.dumps(plain, path="payload")
        runtime = self.runtime
        before = runtime.store.signal(
            execution_id,
            name,
            text,
            runtime.clock(),
            lambda arguments, line: check_payload(name, plain, arguments, line),
        )
        self._require_alive(f"sending signal {name!r} to", before)
        runtime.want_look()

    def published(self, execution_id: str, key: str | None = None) -> Any:
        """What the execution has published: the last value of each key, or of one.

        Returns:
            A dictionary, or with `key` its value, None if it was never published.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        found = self.runtime.store.published(execution_id, key)
        values = {name: codec.loads(text)[0][1] for name, text in found.items()}
        return values if key is None else values.get(key)

    def read_stream(self, execution_id: str, stream: str, offset: int = 0, limit: int = 1000) -> list[tuple[int, Any]]:
        """Items that the execution has emitted: (offset, value), from `offset` on; the first item has offset 0.

        Raises:
            ExecutionNotFound: No execution has this id.
            ValueError: `offset` is below 0 or `limit` below 1.
        """
        if offset < 0 or limit < 1:
            raise ValueError(f"reading stream {stream!r}: offset {offset} and limit {limit} must be at least 0 and 1")
        found = self.runtime.store.emitted(execution_id, stream, offset, limit)
        return [(offset + index, codec.loads(text)[0][1]) for index, text in enumerate(found)]

    def _require_alive(self, doing: str, before: ExecutionRow) -> None:
        if before.status.is_terminal:
            raise ExecutionEnded(f"{doing} execution {before.id!r}: it {_ended_how(before)} already")

    def close(self) -> None:
        """Give up what this process holds and close its connections and sandboxes."""
        self.runtime.engine.release_all()
        self.runtime.interpreter.close()
        self.runtime.store.close()

    def __enter__(self) -> OrchestratorService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Parts

    def _open_calls(self, execution_id: str) -> list[Call]:
        rows = self.runtime.store.calls(execution_id, CallKind.FUNCTION.value)
        return [self._as_call(execution_id, row) for row in rows if not row.status.is_terminal]

    def _as_call(self, execution_id: str, row: CallRow) -> Call:
        key = job_id_of(execution_id, row.call_id, row.attempt)
        return Call(
            key,
            execution_id,
            row.call_id,
            row.attempt,
            row.function,
            row.arguments,
            encode_envelope(key, row.function, row.arguments, self.runtime.config.signing_key),
            row.timeout_seconds,
            row.queue,
            row.priority,
            row.resources or {},
        )

    def _open_call(self, doing: str, execution_id: str, call_id: int, attempt: int | None) -> CallRow:
        execution = self.runtime.store.execution(execution_id)
        call = self.runtime.store.call(execution_id, call_id)
        what = f"{doing} call {call_id!r} of execution {execution_id!r}"
        if call is None or call.kind is not CallKind.FUNCTION:
            raise CallNotFound(f"{what}: there is no such call; `get_pending_calls` lists those that are open")
        if call.status.is_terminal:
            raise CallEnded(f"{what}: it is {call.status.value} already; the outcome that came first stays")
        if execution.status.is_terminal:
            raise CallEnded(f"{what}: the execution is {execution.status.value} already")
        if attempt is not None and attempt != call.attempt:
            raise CallEnded(f"{what}: attempt {attempt} is over, attempt {call.attempt} is the current one")
        return call

    def _settle(self, execution_id: str, call: CallRow, status: CallStatus, outcome: str) -> None:
        runtime = self.runtime
        now = runtime.clock()
        settlement = Settlement(execution_id, call.call_id, call.attempt, status, outcome, now)
        result = runtime.store.commit(runtime.lease.worker, [settlement], [], [execution_id], now)
        if result.ignored:
            raise CallEnded(
                f"ending call {call.call_id} of execution {execution_id!r}: another outcome came a moment earlier"
            )
        runtime.want_look()

    @staticmethod
    def _described(row: ExecutionRow) -> dict[str, Any]:
        return {
            "execution_id": row.id,
            "workflow": row.workflow,
            "status": row.status.value,
            "inputs": codec.loads(row.inputs),
            "output": codec.loads(row.output) if row.output is not None else None,
            "error": row.error,
            "note": row.note,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "ended_at": row.ended_at,
        }


def _checked_id(execution_id: str) -> str:
    if not isinstance(execution_id, str) or not _ID.fullmatch(execution_id):
        raise ValueError(
            f"starting execution {execution_id!r}: an id is 1 to 100 letters, digits, `-` and `_`; choose another"
        )
    return execution_id


def _encoded_inputs(name: str, inputs: Mapping[str, Any]) -> str:
    try:
        return codec.dumps(convert.plain(dict(inputs)), path="inputs")
    except TypeError as error:
        raise InputError(f"starting workflow {name!r}: {error}") from error


def _ended_how(row: ExecutionRow) -> str:
    return {"completed": "has completed", "failed": "failed", "cancelled": "was cancelled"}[row.status.value]


def _failure(error: BaseException | Failure | str) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, BaseException):
        return user_failure(error)
    return Failure("user", "RuntimeError", str(error), bases=("Exception", "BaseException"))

"""Executions moved on by hand: turns, pending calls, and outcomes that somebody brings."""

from __future__ import annotations

from typing import Any

from durable_monty import codec, convert
from durable_monty.describing import describe
from durable_monty.envelope import encode_envelope
from durable_monty.errors import CallEnded, CallNotFound
from durable_monty.models import Call, CallStatus, ExecutionStatus, Failure, job_id_of
from durable_monty.records import CallKind, CallRow, Settlement
from durable_monty.remote import user_failure
from durable_monty.runtime import Runtime
from durable_monty.store import failure_text
from durable_monty.store.listing import Filter

_SEED_STATUSES = {
    ExecutionStatus.SCHEDULED: "pending",
    ExecutionStatus.RUNNING: "pending",
    ExecutionStatus.WAITING: "pending",
}
_MOST_POLLED = 10_000
_LAST_CALL_ID = 2**31 - 1


class ByHand:
    """The methods of `OrchestratorService` that do by hand what workers and executors do."""

    runtime: Runtime

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
        return describe(self.runtime.store, [self.runtime.store.execution(execution_id)])[0]

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
            waiting = self.runtime.store.listing.executions(Filter(status=ExecutionStatus.WAITING.value), _MOST_POLLED)
            return [self.poll(row.id) for row in waiting]
        row = self.runtime.store.execution(execution_id)
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

    def get_pending_calls(self, execution_id: str) -> list[Call]:
        """The calls of host functions that have no outcome, in the order in which they were made.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        self.runtime.store.execution(execution_id)
        return self._open_calls(execution_id)

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
        text = self.runtime.fitting(codec.dumps(convert.plain(result), path="result"), "the result")
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

    def _open_calls(self, execution_id: str) -> list[Call]:
        rows = self.runtime.store.calls(execution_id, CallKind.FUNCTION.value)
        return [self._as_call(execution_id, row) for row in rows if not row.status.is_terminal]

    def _as_call(self, execution_id: str, row: CallRow) -> Call:
        codec.check_readable(row.arguments)
        key = job_id_of(execution_id, row.call_id, row.attempt)
        return Call(
            key,
            execution_id,
            row.call_id,
            row.attempt,
            row.function,
            row.arguments,
            encode_envelope(key, row.function, row.arguments, self.runtime.config.signing_key, progress=row.progress),
            row.timeout_seconds,
            row.queue,
            row.priority,
            row.resources or {},
        )

    def _open_call(self, doing: str, execution_id: str, call_id: int, attempt: int | None) -> CallRow:
        execution = self.runtime.store.execution(execution_id)
        is_number = isinstance(call_id, int) and 0 <= call_id <= _LAST_CALL_ID
        call = self.runtime.store.call(execution_id, call_id) if is_number else None
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


def _failure(error: BaseException | Failure | str) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, BaseException):
        return user_failure(error)
    return Failure("user", "RuntimeError", str(error), bases=("Exception", "BaseException"))

"""One turn: bring the sandbox to where the execution stands, deliver what has come, run, and say what to record."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping

from durable_monty import codec
from durable_monty.consequences import Consequences, answer_of
from durable_monty.errors import DecodeError
from durable_monty.held import Held
from durable_monty.interpreter import (
    Announced,
    Interpreter,
    Progress,
    Raised,
    SandboxCrashed,
    SandboxError,
    Session,
    UndumpableState,
)
from durable_monty.models import MAX_TRACEBACK_CHARACTERS, CallStatus, ExecutionStatus, Failure, clipped
from durable_monty.planning import Planner
from durable_monty.records import CallKind, CallRow, DueCall, Turn
from durable_monty.replay import ReplayMismatch, replay
from durable_monty.sealing import SnapshotRefused, seal, unseal
from durable_monty.store import Store, read_failure

log = logging.getLogger(__name__)
print_log = logging.getLogger("durable_monty.prints")

NEVER_DELIVERED = -1
"""Batch number of calls that are answered within their turn, such as clock readings."""


class Room:
    """How many calls a worker can still take; used by several threads.

    Args:
        capacity: The numbers, by executor.
    """

    def __init__(self, capacity: Mapping[str, int]) -> None:
        self._left = dict(capacity)
        self._lock = threading.Lock()

    def take(self, executor: str) -> bool:
        """Take the place for one call, if there is one."""
        with self._lock:
            left = self._left.get(executor, 0)
            self._left[executor] = left - 1
            return left > 0


class TurnRunner:
    """Runs turns of claimed executions; records nothing itself."""

    def __init__(
        self,
        store: Store,
        interpreter: Interpreter,
        planner: Planner,
        signing_key: bytes | None,
        on_print: Callable[[str, str], None] | None,
    ) -> None:
        self._store = store
        self._interpreter = interpreter
        self._planner = planner
        self._signing_key = signing_key
        self._on_print = on_print or _log_print

    @staticmethod
    def is_crash(error: Exception) -> bool:
        """Whether the error is the loss of a sandbox process, not the end of a workflow."""
        return isinstance(error, SandboxCrashed)

    def run(self, held: Held, now: float, worker: str, room: Room) -> Turn | None:
        """Run one turn.

        Args:
            room: For calls that the worker submits itself; taken from.

        Returns:
            What to make durable, or None if nothing was announced and nothing ended: then what was delivered is
            in the live sandbox only, and is delivered again if that is lost.

        Raises:
            SandboxCrashed: The sandbox process died, other than by its time limit.
        """
        turn = Turn(held.row.id, held.row.version, held.row.status, at=now, seen_wake_at=held.row.wake_at)
        turn.is_cancel_delivered = held.row.is_cancel_delivered or (
            held.row.cancel_deadline_at is not None
            and any(call.status is CallStatus.CANCELLED for call in held.undelivered.values())
        )
        if _is_to_be_ended(held, now):
            return self._end_cancelled(held, turn)
        if held.row.version > 0 and not held.undelivered and not _must_be_recorded(held, turn, now):
            return None
        followed = Consequences(held, lambda announced: _new_row(announced, now), now)
        if turn.is_cancel_delivered:
            followed.tell_cancelled()
        try:
            progress = self._progress(held, turn, followed)
        except SandboxCrashed as crash:
            if not crash.timed_out:
                held.close_session()
                raise
            return self._end(held, turn, _out_of_time(self._interpreter))
        except ReplayMismatch as mismatch:
            return self._end(held, turn, Raised("RuntimeError", str(mismatch)))
        except DecodeError as error:
            # Trying again would find the same, and would keep the worker from every other execution.
            return self._end(held, turn, Raised("RuntimeError", f"reading the log: {error}"))
        followed(progress)
        held.note_delivery(progress.batches)
        turn.calls = _delivered_in_turn(held, followed.rows)
        turn.settlements, turn.rescoped = followed.settlements, followed.rescoped
        turn.scopes_before = followed.scopes_before
        if progress.is_finished:
            return self._finish(held, turn, progress)
        is_news = turn.calls or turn.settlements or turn.rescoped
        if not is_news and not _must_be_recorded(held, turn, now):
            return None
        try:
            return self._suspend(held, turn, now, worker, room)
        except UndumpableState as error:
            return self._end(held, turn, error.raised)

    def _progress(self, held: Held, turn: Turn, followed: Consequences) -> Progress:
        """Stand where the execution stands and deliver what has come."""
        started = self._open(held, turn) if held.session is None else None
        assert held.session is not None
        if started is not None and started.is_finished:
            return started
        if started is None:
            held.session.begin_turn(len(held.open) + len(held.undelivered))
        answers = [answer_of(call) for call in held.undelivered.values()]
        return held.session.advance(answers, followed, started)

    def _open(self, held: Held, turn: Turn) -> Progress | None:
        """Open the sandbox: fresh, from the snapshot, or from the log; the first returns its progress."""
        workflow = held.workflow
        session = self._interpreter.open(
            workflow.functions,
            held.source_map.line_of,
            held.row.id,
            lambda text: self._on_print(held.row.id, text),
        )
        held.session = session
        if held.row.version == 0:
            return session.start(workflow.source, workflow.globals(codec.loads(held.row.inputs)))
        try:
            session.load(self._state(held))
        except (SnapshotRefused, SandboxError) as error:
            turn.note = f"rebuilt from the log: {error}"
            log.warning(
                "snapshot refused, rebuilding the execution from its log",
                extra={"execution_id": held.row.id, "reason": str(error)},
            )
            held.close_session()
            held.session = self._rebuild(held)
        return None

    def _state(self, held: Held) -> bytes:
        snapshot = held.snapshot or self._store.snapshot(held.row.id)
        if snapshot is None:
            raise SnapshotRefused("there is no snapshot")
        return unseal(held.row.id, held.row.version, snapshot, self._signing_key)

    def _rebuild(self, held: Held) -> Session:
        workflow = held.workflow
        # Printed before: what the workflow printed in the turns that are replayed is not printed again.
        session = self._interpreter.open(workflow.functions, held.source_map.line_of, held.row.id, lambda text: None)
        try:
            replay(session, workflow, codec.loads(held.row.inputs), self._store.calls(held.row.id))
        except BaseException:
            session.close()
            raise
        return session

    def _suspend(self, held: Held, turn: Turn, now: float, worker: str, room: Room) -> Turn:
        assert held.session is not None
        turn.status = ExecutionStatus.WAITING
        turn.deliveries = list(held.unsaved.values())
        turn.next_batch = held.next_batch
        for row in turn.calls:
            if row.kind is CallKind.FUNCTION and not row.status.is_terminal:
                self._place(row, held, now, worker, room)
        turn.wake_at = _wake_at(held, turn)
        turn.is_kept = held.waits_for_function or any(call.kind is CallKind.FUNCTION for call in turn.calls)
        turn.snapshot = seal(
            held.row.id,
            held.row.version + 1,
            held.session.dump(),
            self._interpreter.monty_version,
            self._signing_key,
        )
        return turn

    def _place(self, row: CallRow, held: Held, now: float, worker: str, room: Room) -> None:
        """Decide where a new call runs, and whether this worker submits it at once."""
        self._planner.plan(row, held.workflow)
        row.due_at = now
        # What is limited is claimed under the lock of its limit.
        if row.limit_key is None and room.take(row.executor or ""):
            row.status, row.worker, row.due_at = CallStatus.SUBMITTING, worker, None

    def _finish(self, held: Held, turn: Turn, progress: Progress) -> Turn:
        """The workflow has ended: with a value, an exception, or a cancellation that went through."""
        raised = progress.raised
        if raised is not None:
            if turn.is_cancel_delivered and raised.type == "BaseException":
                return self._end_cancelled(held, turn)
            return self._end(held, turn, raised)
        turn.status = ExecutionStatus.COMPLETED
        turn.output = progress.output
        return self._close(held, turn)

    def _end_cancelled(self, held: Held, turn: Turn) -> Turn:
        turn.status = ExecutionStatus.CANCELLED
        turn.error = held.row.cancel_reason or "cancelled"
        return self._close(held, turn)

    def _end(self, held: Held, turn: Turn, raised: Raised) -> Turn:
        turn.status = ExecutionStatus.FAILED
        text = held.source_map.traceback(raised)
        cause = self._cause(held, raised)
        shown = text if cause is None else f"{text}\n\n{cause}"
        turn.error = clipped(shown, 2 * MAX_TRACEBACK_CHARACTERS).replace("\0", "\\0")
        turn.failure = Failure("user", raised.type, raised.message, turn.error, ("Exception",))
        return self._close(held, turn)

    def _close(self, held: Held, turn: Turn) -> Turn:
        """What every end of an execution has in common."""
        turn.deliveries = list(held.unsaved.values())
        turn.next_batch = held.next_batch
        for row in turn.calls:
            _never_submit(row, turn.at)
        if turn.status is ExecutionStatus.FAILED:
            turn.last_turn = _undoing(held, turn)
        turn.cancelled = list(held.open)
        held.cancelled_jobs += [DueCall(held.row.id, call) for call in held.open.values()]
        held.close_session()
        return turn

    def _cause(self, held: Held, raised: Raised) -> str | None:
        """The remote traceback of the call whose failure left the workflow, if one did."""
        candidates = [call for call in reversed(held.delivered.values()) if call.status is CallStatus.FAILED]
        if not any(_is_cause(call, raised) for call in candidates):
            candidates = [call for call in reversed(self._store.calls(held.row.id)) if call.status is CallStatus.FAILED]
        for call in candidates:
            if _is_cause(call, raised):
                return _cause_text(call)
        return None


def _is_to_be_ended(held: Held, now: float) -> bool:
    """Whether a cancellation has nothing to wait for: nothing has run yet, or its deadline has passed."""
    deadline_at = held.row.cancel_deadline_at
    return deadline_at is not None and (held.row.version == 0 or deadline_at <= now)


def _new_row(announced: Announced, now: float) -> CallRow:
    """The row of a new call, wherever it may run."""
    row = CallRow(
        announced.call_id,
        announced.kind,
        announced.function,
        announced.arguments,
        CallStatus.PENDING,
        announced.line,
        announced.blocking,
        created_at=now,
        scope=announced.scope,
        policy=announced.policy,
    )
    if announced.kind.is_answered:
        row.status, row.outcome, row.ended_at = CallStatus.COMPLETED, announced.answer, now
        row.batch, row.position = NEVER_DELIVERED, 0
    elif announced.kind is not CallKind.FUNCTION:
        # Nobody claims it: it ends by itself, or through the execution, workflow or person that it waits for.
        row.status = CallStatus.SUBMITTED
        row.due_at = None if announced.seconds is None else now + announced.seconds
    return row


def _delivered_in_turn(held: Held, rows: dict[int, CallRow]) -> list[CallRow]:
    """The new calls; those whose outcome was delivered within the turn take their delivery with them."""
    for call_id, row in rows.items():
        delivery = held.unsaved.pop(call_id, None)
        if delivery is not None:
            row.batch, row.position = delivery.batch, delivery.position
            held.delivered.pop(call_id)
    return list(rows.values())


def _never_submit(row: CallRow, now: float) -> None:
    """A call that was made in the turn in which the workflow ended."""
    if not row.status.is_terminal:
        row.status, row.ended_at, row.due_at = CallStatus.CANCELLED, now, None
    if row.batch is None:
        row.batch, row.position = NEVER_DELIVERED, 0


def _undoing(held: Held, turn: Turn) -> str:
    """What `Store.retry` has to undo to stand where the last snapshot was taken."""
    cancelled = [call.call_id for call in held.open.values()]
    settled = [item.call_id for item in turn.settlements]
    return json.dumps(
        {
            "batch": held.row.next_batch,
            "calls": [row.call_id for row in turn.calls],
            "cancelled": cancelled + settled,
            "scopes": turn.scopes_before,
        }
    )


def _wake_at(held: Held, turn: Turn) -> float | None:
    waiting = (*held.timed, *(call for call in turn.calls if call.kind is not CallKind.FUNCTION))
    times = [call.due_at for call in waiting if call.due_at is not None and not call.status.is_terminal]
    if held.row.deadline_at is not None and held.row.cancel_deadline_at is None:
        times.append(held.row.deadline_at)
    if held.row.cancel_deadline_at is not None:
        times.append(held.row.cancel_deadline_at if turn.is_cancel_delivered else turn.at)
    return min(times, default=None)


def _must_be_recorded(held: Held, turn: Turn, now: float) -> bool:
    """Whether the turn matters although it announced nothing: its wake-up time or a cancellation has passed."""
    is_due = held.row.wake_at is not None and held.row.wake_at <= now
    return is_due or turn.is_cancel_delivered != held.row.is_cancel_delivered or turn.note is not None


def _is_cause(call: CallRow, raised: Raised) -> bool:
    failure = read_failure(call.outcome or "")
    return (
        bool(raised.message) and failure.message in raised.message and bool(failure.traceback or failure.kind != "user")
    )


def _cause_text(call: CallRow) -> str:
    failure: Failure = read_failure(call.outcome or "")
    name = call.function.rpartition(".")[2]
    where = f"{name}() (call {call.call_id}, attempt {call.attempt}, line {call.line})"
    head = f"The failure came from {where}, kind {failure.kind}"
    return f"{head}:\n\n{failure.traceback.rstrip()}" if failure.traceback else f"{head}: {failure.message}"


def _out_of_time(interpreter: Interpreter) -> Raised:
    limits = interpreter.limits
    return Raised(
        "TimeoutError",
        f"a turn ran longer than {limits.max_turn_seconds} s without calling a host function, and its sandbox did not "
        f"stop within {limits.request_timeout_seconds} s; the process was killed",
        is_limit=True,
    )


def _log_print(execution_id: str, text: str) -> None:
    print_log.info(text.rstrip("\n"), extra={"execution_id": execution_id})

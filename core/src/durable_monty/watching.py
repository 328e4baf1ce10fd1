"""What engine and dispatcher have just made durable, put into the words of observers.

There is a watch only where there is an observer; without one its users hold None.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from durable_monty.errors import StoreError
from durable_monty.held import Held
from durable_monty.jobs import OpenJobs
from durable_monty.models import CallStatus, ExecutionStatus, job_id_of
from durable_monty.observers import Event, Observers
from durable_monty.observerspecs import (
    CallRetried,
    CallSettled,
    CallSubmitted,
    ExecutionEnded,
    ExecutionStarted,
    ExecutionSuspended,
    SignalReceived,
    StartingCall,
)
from durable_monty.records import (
    CallKind,
    CallRow,
    CommitResult,
    DueCall,
    NextAttempt,
    Settlement,
    Turn,
)
from durable_monty.store import Store, read_failure

log = logging.getLogger(__name__)


class Watch:
    """Tells observers of one worker what it has made durable. Safe to use from several threads."""

    def __init__(self, store: Store, observers: Observers, jobs: OpenJobs) -> None:
        self._store = store
        self._observers = observers
        self._jobs = jobs

    def committed(
        self, settlements: Sequence[Settlement], turns: Sequence[Turn], touched: Sequence[Held], result: CommitResult
    ) -> None:
        """A transaction of the engine; called before what is held is brought in line with it."""
        try:
            events = self._of_commit(settlements, turns, touched, result)
        except Exception:
            # The transaction has happened: what is wrong here must not keep its engine from going on.
            log.exception("observers are not told of a transaction")
            return
        self._observers.tell(_in_order(events))

    def reattempted(
        self, attempts: Iterable[NextAttempt], late: Collection[str], held: Callable[[str], Held | None]
    ) -> None:
        """Failed attempts that are followed by others, unless they came too late."""
        events: list[Event] = []
        for item in attempts:
            if job_id_of(item.execution_id, item.call_id, item.attempt) not in late:
                row = self._row(held(item.execution_id), item.execution_id, item.call_id, item.attempt)
                events.append(
                    CallRetried(
                        item.execution_id,
                        item.call_id,
                        item.attempt,
                        row.function if row else "",
                        row.executor if row else None,
                        row.created_at if row else item.ended_at,
                        item.ended_at,
                        item.failure,
                        item.due_at,
                        bool(item.lost),
                    )
                )
        self._observers.tell(events)

    def submitted(self, calls: Iterable[DueCall], now: float) -> None:
        """Attempts that an executor has accepted."""
        self._observers.tell(
            [
                CallSubmitted(
                    due.execution_id,
                    due.row.call_id,
                    due.row.attempt,
                    due.row.function,
                    due.row.executor,
                    due.row.created_at,
                    now,
                    due.row.line,
                )
                for due in calls
            ]
        )

    def trace_contexts(self, calls: Sequence[DueCall], now: float) -> dict[str, str]:
        """The trace contexts that are to travel with these attempts, by job id."""
        return self._observers.trace_contexts(
            [
                StartingCall(
                    due.execution_id,
                    due.row.call_id,
                    due.row.attempt,
                    due.row.function,
                    due.row.executor,
                    due.row.created_at,
                    now,
                )
                for due in calls
            ]
        )

    def _of_commit(
        self, settlements: Sequence[Settlement], turns: Sequence[Turn], touched: Sequence[Held], result: CommitResult
    ) -> list[Event]:
        held = {item.row.id: item for item in touched}
        events: list[Event] = []
        for outcome in settlements:
            is_ignored = job_id_of(outcome.execution_id, outcome.call_id, outcome.attempt) in result.ignored
            settled = self._late(outcome) if is_ignored else self._settled(held.get(outcome.execution_id), outcome)
            if settled is not None:
                events.append(settled)
        for item in held.values():
            if item.row.id not in result.stale:
                events += self._ended_elsewhere(item)
        for turn in turns:
            if turn.execution_id not in result.stale:
                events += _of_turn(held[turn.execution_id], turn)
        return events

    def _settled(self, held: Held | None, item: Settlement) -> CallSettled | None:
        row = self._row(held, item.execution_id, item.call_id, item.attempt)
        if row is not None and row.kind is not CallKind.FUNCTION:
            return None
        failed = item.status is not CallStatus.COMPLETED
        return CallSettled(
            item.execution_id,
            item.call_id,
            item.attempt,
            row.function if row else "",
            row.executor if row else None,
            row.created_at if row else item.ended_at,
            item.ended_at,
            item.status,
            read_failure(item.outcome) if failed else None,
        )

    def _late(self, item: Settlement) -> CallSettled | None:
        """An outcome that was not recorded: the function may have committed it itself, together with its own writes."""
        if self._jobs.get(job_id_of(item.execution_id, item.call_id, item.attempt)) is None:
            return None
        try:
            row = self._store.call(item.execution_id, item.call_id)
        except StoreError:
            return None
        # A cancellation is told by whoever has recorded it.
        is_told = row is None or row.attempt != item.attempt or row.status is CallStatus.CANCELLED
        return None if row is None or is_told or not row.status.is_terminal else _ended(item.execution_id, row)

    def _ended_elsewhere(self, held: Held) -> list[Event]:
        """Calls that were found to have ended; those whose jobs are open here were not told of by anybody."""
        return [
            _ended(held.row.id, row)
            for row in held.ended_elsewhere
            if row.kind is CallKind.FUNCTION
            and self._jobs.get(job_id_of(held.row.id, row.call_id, row.attempt)) is not None
        ]

    def _row(self, held: Held | None, execution_id: str, call_id: int, attempt: int) -> CallRow | None:
        if held is not None:
            for rows in (held.open, held.undelivered, held.delivered):
                if call_id in rows:
                    return rows[call_id]
        job = self._jobs.get(job_id_of(execution_id, call_id, attempt))
        if job is not None:
            return job.due.row
        try:
            return self._store.call(execution_id, call_id)
        except StoreError:
            return None


def _of_turn(held: Held, turn: Turn) -> list[Event]:
    row, workflow = held.row, held.workflow.name
    events: list[Event] = []
    is_first = turn.version == 0
    if is_first and turn.status is not ExecutionStatus.CANCELLED:
        events.append(ExecutionStarted(row.id, workflow, turn.at, row.created_at, row.parent, row.schedule))
    for delivery in turn.deliveries:
        call = held.delivered.get(delivery.call_id) or held.undelivered.get(delivery.call_id)
        if call is not None and call.kind is CallKind.SIGNAL and call.status is CallStatus.COMPLETED:
            events.append(SignalReceived(row.id, call.function, turn.at))
    # Calls that ended with the execution, and those that were made in a turn that gave them up again.
    gone = [call for call_id in turn.cancelled if (call := held.open.get(call_id)) is not None]
    gone += [call for call in turn.calls if call.status.is_terminal]
    events += [_ended(row.id, call, turn.at) for call in gone if call.kind is CallKind.FUNCTION]
    if not turn.status.is_terminal:
        events.append(ExecutionSuspended(row.id, workflow, turn.at, turn.wake_at))
        return events
    started_at = turn.at if is_first and turn.status is not ExecutionStatus.CANCELLED else row.started_at
    events.append(
        ExecutionEnded(
            row.id,
            workflow,
            turn.at,
            turn.status,
            row.created_at,
            started_at,
            row.parent,
            row.schedule,
            turn.failure.type if turn.failure is not None else None,
            turn.error,
        )
    )
    return events


def _ended(execution_id: str, row: CallRow, at: float | None = None) -> CallSettled:
    """A call that has ended, or ends now with its execution."""
    status = row.status if row.status.is_terminal else CallStatus.CANCELLED
    has_failure = status is not CallStatus.COMPLETED and row.status.is_terminal and row.outcome is not None
    return CallSettled(
        execution_id,
        row.call_id,
        row.attempt,
        row.function,
        row.executor,
        row.created_at,
        row.ended_at or at or row.created_at,
        status,
        read_failure(row.outcome) if has_failure and row.outcome is not None else None,
    )


def _in_order(events: list[Event]) -> list[Event]:
    """The starts first, and the ends last: what a transaction makes durable has no order of its own."""
    rank = {ExecutionStarted: 0, SignalReceived: 1, CallSettled: 2, ExecutionSuspended: 3, ExecutionEnded: 4}
    return sorted(events, key=lambda event: rank[type(event)])

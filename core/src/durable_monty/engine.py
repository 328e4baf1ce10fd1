"""Advancing executions: deliver outcomes, run the sandbox to its next suspension, make the turn durable.

The engine knows neither executors nor their jobs. What it announces is in the store when `advance` returns; the new
calls are handed back as well, so that a worker need not read what it has just written.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from durable_monty.errors import PayloadUnreadable, SchemaMismatch, StoreError, StoreUnreachable
from durable_monty.held import MAX_KEPT_EXECUTIONS, Held, HeldExecutions
from durable_monty.interpreter import Interpreter
from durable_monty.lanes import in_lanes
from durable_monty.models import CallStatus, ExecutionStatus, Failure, job_id_of
from durable_monty.planning import Planner
from durable_monty.records import CallKind, CallRow, Claimed, DueCall, ExecutionRow, NextAttempt, Settlement, Turn
from durable_monty.store import Store, failure_text
from durable_monty.store.vault import UNREADABLE_DELAY_SECONDS, UNREADABLE_NOTE
from durable_monty.turns import Room, TurnRunner
from durable_monty.watching import Watch

log = logging.getLogger(__name__)

MAX_TURNS_PER_COMMIT = 100
CRASHES_BEFORE_PAUSE = 3
CANCEL_DEADLINE_SECONDS = 60.0
"""How long an execution whose deadline has passed, or whose parent has ended, may clean up."""
_MOST_LANES = 2
_MANY_TURNS = 8
"""From so many turns on it pays to start a thread for half of them."""
_CRASH_DELAY_SECONDS = 1.0
_SHOWN_CHARACTERS = 500


@dataclass(slots=True)
class Advanced:
    """What an advance made durable.

    Attributes:
        to_submit: New calls that this worker took on itself, to be submitted now.
        ended: Executions that ended.
        settled: Job ids of attempts whose outcomes are durable, or were found to be late.
        cancelled: Calls whose outcome nobody waits for any more.
        pending: Executors with new calls that wait for room.
        wake_at: The earliest time at which one of these executions is to be looked at again.
        is_busy: Whether there is more to do at once.
    """

    to_submit: list[DueCall] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    cancelled: list[DueCall] = field(default_factory=list)
    pending: set[str] = field(default_factory=set)
    wake_at: float | None = None
    is_busy: bool = False

    def add(self, other: Advanced) -> None:
        """Take over what another advance made durable."""
        self.to_submit += other.to_submit
        self.ended += other.ended
        self.settled |= other.settled
        self.cancelled += other.cancelled
        self.pending |= other.pending
        times = [time for time in (self.wake_at, other.wake_at) if time is not None]
        self.wake_at = min(times, default=None)
        self.is_busy = self.is_busy or other.is_busy


class Engine:
    """Advances the executions of one store on behalf of one worker. Safe to use from several threads.

    Args:
        worker: Gives the id under which executions are claimed.
        signing_key: Signs snapshots; None: a digest only.
        clock: The time, in seconds since the epoch.

    Attributes:
        watch: Told of everything that becomes durable; None: nobody is.
    """

    def __init__(
        self,
        store: Store,
        interpreter: Interpreter,
        planner: Planner,
        worker: Callable[[], str],
        *,
        signing_key: bytes | None = None,
        clock: Callable[[], float] = time.time,
        on_print: Callable[[str, str], None] | None = None,
    ) -> None:
        self._store = store
        self._worker_id = worker
        self._clock = clock
        self._lock = threading.RLock()
        self._lanes = _lanes(interpreter.limits.processes)
        self._held = HeldExecutions(max_sessions=interpreter.limits.processes - self._lanes)
        self._turns = TurnRunner(store, interpreter, planner, signing_key, on_print)
        self.watch: Watch | None = None

    @property
    def _worker(self) -> str:
        return self._worker_id()

    def advance(self, settlements: Sequence[Settlement], capacity: Mapping[str, int] | None = None) -> Advanced:
        """Record outcomes and advance the executions that they belong to.

        An execution that another worker holds only gets the outcome; its holder is woken.

        Args:
            settlements: Outcomes, at most one per call.
            capacity: How many new calls this worker can submit at once, by executor; calls beyond that are
                stored as `pending` for whoever has room.

        Raises:
            StoreError: Nothing is known to be durable; the same settlements may be given again.
        """
        with self._lock:
            ids = {item.execution_id for item in settlements}
            self._claim_missing(ids)
            return self._run(ids, settlements, capacity or {})

    def advance_due(self, capacity: Mapping[str, int] | None = None) -> Advanced:
        """Advance executions that are scheduled, or whose time has come, or that others have woken.

        Raises:
            StoreError: As `advance`.
        """
        with self._lock:
            now = self._clock()
            claimed = self._store.claim(self._worker, now, MAX_TURNS_PER_COMMIT)
            for item in claimed:
                self._admit(item)
            advanced = self._run({item.row.id for item in claimed}, (), capacity or {})
            advanced.is_busy = advanced.is_busy or len(claimed) == MAX_TURNS_PER_COMMIT
            return advanced

    def advance_one(self, execution_id: str) -> Advanced:
        """Run one turn of this execution if nobody else holds it; its new calls are stored as `pending`.

        Raises:
            StoreError: As `advance`.
        """
        with self._lock:
            claimed = self._store.claim(self._worker, self._clock(), 1, [execution_id])
            for item in claimed:
                self._admit(item)
            return self._run({item.row.id for item in claimed}, (), {})

    def reattempt(self, attempts: Sequence[NextAttempt]) -> None:
        """Record failed attempts that are followed by another.

        Raises:
            StoreError: As `advance`.
        """
        with self._lock:
            late = self._store.reattempt(attempts)
            if self.watch is not None:
                self.watch.reattempted(attempts, late, self._held.get)
            for item in attempts:
                held = self._held.get(item.execution_id)
                if held is None:
                    continue
                if job_id_of(item.execution_id, item.call_id, item.attempt) in late:
                    # The copy may be behind: the same news may have been recorded before, and its answer lost.
                    self._held.drop(item.execution_id)
                else:
                    held.reattempt(item)

    def release_all(self) -> None:
        """Give up every claim, so that others may go on at once."""
        with self._lock:
            held = self._held.take_all()
            wake = {item.row.id for item in held if item.has_ended_calls}
            self._store.release(self._worker, [item.row.id for item in held], wake, self._clock())

    def forget_all(self) -> None:
        """Drop what is kept in memory; claims stay until they are released or the lease lapses."""
        with self._lock:
            self._held.take_all()

    def _claim_missing(self, ids: Collection[str]) -> None:
        missing = [execution_id for execution_id in ids if execution_id not in self._held]
        if missing:
            for item in self._store.claim(self._worker, self._clock(), len(missing), missing):
                self._admit(item)

    def _admit(self, claimed: Claimed) -> None:
        """Keep a claimed execution, as the database has it now."""
        held = self._held.get(claimed.row.id)
        if held is not None and held.row.version == claimed.row.version:
            held.refresh(claimed)
        else:
            self._held.put(Held(claimed))

    def _run(self, ids: Iterable[str], settlements: Sequence[Settlement], capacity: Mapping[str, int]) -> Advanced:
        ids = set(ids)
        involved = ids | {item.execution_id for item in settlements}
        crashes = {held.row.id: held.row.crashes for id_ in involved if (held := self._held.get(id_)) is not None}
        try:
            return self._run_held(ids, settlements, capacity)
        except BaseException as error:
            # What is in memory may be ahead of the database or behind it; the database decides. Turns that were run
            # before this happened have told their sandboxes of outcomes, and nobody will record what they called.
            for execution_id in involved:
                self._held.drop(execution_id)
            if not _is_refusal(error):
                raise
            refusal = error
        if len(involved) > 1:
            return self._run_apart(ids, settlements, capacity)
        (execution_id,) = involved
        if execution_id not in crashes:
            raise refusal
        return self._set_aside(execution_id, settlements, crashes[execution_id], refusal)

    def _run_apart(
        self, ids: Collection[str], settlements: Sequence[Settlement], capacity: Mapping[str, int]
    ) -> Advanced:
        """Run each by itself, because the database refused something: only the one that asked for it is to suffer."""
        advanced = Advanced()
        for execution_id in sorted({*ids, *(item.execution_id for item in settlements)}):
            own = [item for item in settlements if item.execution_id == execution_id]
            self._claim_missing({execution_id})
            advanced.add(self._run({execution_id} & set(ids), own, capacity))
        return advanced

    def _set_aside(
        self, execution_id: str, settlements: Sequence[Settlement], crashes: int, refusal: StoreError
    ) -> Advanced:
        """Record outcomes without the turn that they allow, which the database refuses, and try that again later."""
        what = f"its turn could not be recorded {crashes + 1} times in a row: {refusal}"
        self._pause_or_retry(execution_id, crashes + 1, what, self._clock())
        result = self._store.commit(self._worker, settlements, (), (), self._clock())
        settled = {job_id_of(item.execution_id, item.call_id, item.attempt) for item in settlements}
        return Advanced(settled=settled | set(result.ignored))

    def _run_held(
        self, ids: Collection[str], settlements: Sequence[Settlement], capacity: Mapping[str, int]
    ) -> Advanced:
        now = self._clock()
        extra: list[Settlement] = []
        turns: list[Turn] = []
        touched: list[Held] = []
        fresh: list[Settlement] = []
        taken: dict[str, list[Settlement]] = defaultdict(list)
        for item in _newest(settlements):
            held = self._held.get(item.execution_id)
            if held is not None and held.has_ended(item):
                # Not to the store: what a turn delivers now may be what this call ended with, and one commit says one
                # thing about a call.
                continue
            fresh.append(item)
            if held is not None and held.settle(item):
                taken[item.execution_id].append(item)
        for execution_id in ids:
            held = self._held.get(execution_id)
            if held is None:
                continue
            touched.append(held)
            self._note_deadline(held, now)
            due = self._settle_due(held, now)
            extra += due
            taken[execution_id] += due
        for held, turn in zip(touched, self._turns_of(touched, now, capacity), strict=True):
            if turn is not None:
                turns.append(turn)
                extra += turn.settlements
                turn.relies_on = {item.call_id for item in (*taken[held.row.id], *turn.settlements)}
                if turn.status.is_terminal and held.row.parent_call is not None:
                    extra.append(_end_of_child(held.row, turn))
        advanced, ignored = self._commit(_newest([*fresh, *extra]), turns, touched, now)
        advanced.settled |= {job_id_of(item.execution_id, item.call_id, item.attempt) for item in settlements}
        if ignored:
            self._forget_refused(taken, ignored, now)
        return advanced

    def _forget_refused(self, taken: Mapping[str, Sequence[Settlement]], ignored: Collection[str], now: float) -> None:
        """Load executions anew that were told of an outcome which the store had to refuse.

        It was of the attempt that is known here; another worker has begun a later one, or has ended the call.
        """
        held = [
            execution_id
            for execution_id, items in taken.items()
            if execution_id in self._held
            and any(job_id_of(execution_id, item.call_id, item.attempt) in ignored for item in items)
        ]
        for execution_id in held:
            self._held.drop(execution_id)
        if held:
            self._store.commit(self._worker, (), (), held, now)

    def close_children(self) -> None:
        """Ask for the cancellation of children that are to end with their parent, or with the call for them.

        Raises:
            StoreError: As `advance`.
        """
        for execution_id in self._store.steering.children_to_cancel():
            now = self._clock()
            self._store.steering.request_cancel(
                execution_id, "its parent has ended", now + CANCEL_DEADLINE_SECONDS, now
            )

    def _note_deadline(self, held: Held, now: float) -> None:
        """Turn a deadline that has passed into a cancellation."""
        row = held.row
        if row.deadline_at is None or row.deadline_at > now or row.cancel_deadline_at is not None:
            return
        reason = f"its deadline of {round(row.deadline_at - row.created_at, 3):g} s has passed"
        self._store.steering.request_cancel(row.id, reason, now + CANCEL_DEADLINE_SECONDS, now)
        row.cancel_deadline_at, row.cancel_reason, row.wake_at = now + CANCEL_DEADLINE_SECONDS, reason, now

    def _turns_of(self, some: Sequence[Held], now: float, capacity: Mapping[str, int]) -> list[Turn | None]:
        """Run the turns of these executions: several at a time where they are many, as each mostly waits for its sandbox."""
        room = Room(capacity)

        def run(held: Held) -> Turn | None:
            self._held.begin(held)
            turn = self._turn(held, now, room)
            self._held.limit_sessions(keep=held)
            return turn

        return in_lanes(run, some, self._lanes if len(some) >= _MANY_TURNS else 1)

    def _turn(self, held: Held, now: float, room: Room) -> Turn | None:
        try:
            turn = self._turns.run(held, now, self._worker, room)
        except PayloadUnreadable as error:
            self._leave_to_others(held, error, now)
            return None
        except StoreError:
            raise
        except Exception as error:
            # Whatever one workflow brings about must not keep the worker from every other.
            crashes = held.row.crashes + 1
            if self._turns.is_crash(error):
                what = f"turn {held.row.version + 1} took its sandbox process down {crashes} times in a row: {error}"
            else:
                log.exception("a turn failed", extra={"execution_id": held.row.id})
                shown = f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]
                what = f"turn {held.row.version + 1} could not be run {crashes} times in a row: {shown}"
            self._held.drop(held.row.id)
            self._pause_or_retry(held.row.id, crashes, what, now)
            return None
        if turn is not None and turn.note is None and (held.row.note or "").startswith(UNREADABLE_NOTE):
            turn.note = "could not be decrypted for a while"
        if turn is not None and len(self._held) > MAX_KEPT_EXECUTIONS:
            turn.is_kept = False
        return turn

    def _leave_to_others(self, held: Held, error: PayloadUnreadable, now: float) -> None:
        """Give up what is encrypted with a key that is not known here: another worker may have it, or this one later."""
        log.warning("execution cannot be read, it is tried again later: %s", error, extra={"execution_id": held.row.id})
        self._held.drop(held.row.id)
        self._store.defer(self._worker, held.row.id, now + UNREADABLE_DELAY_SECONDS, str(error))

    def _pause_or_retry(self, execution_id: str, crashes: int, what: str, now: float) -> None:
        retry_at = now + _CRASH_DELAY_SECONDS * crashes if crashes < CRASHES_BEFORE_PAUSE else None
        note = what if retry_at is not None else f"{what}; paused"
        log.warning("a turn came to nothing: %s", what, extra={"execution_id": execution_id, "crashes": crashes})
        self._store.record_crash(self._worker, execution_id, retry_at, note.replace("\0", "\\0"))

    def _settle_due(self, held: Held, now: float) -> list[Settlement]:
        """End what waits for a time that has come, and every open call if a cancellation is to enter the workflow."""
        settlements = []
        if held.is_cancelling:
            reason = held.row.cancel_reason or "the execution was cancelled"
            failure = failure_text(Failure("cancelled", "BaseException", reason))
            for call in held.open.values():
                settlements.append(_settlement(held.row, call, CallStatus.CANCELLED, failure, now))
                held.cancelled_jobs.append(DueCall(held.row.id, call))
        else:
            # In the order of their times, however late it is: a worker may have been away for longer than all of them.
            due = [(call.due_at, call.call_id, call) for call in held.timed if call.due_at is not None]
            settlements = [_due_settlement(held.row, call, at) for at, _, call in sorted(due) if at <= now]
        for item in settlements:
            held.settle(item)
        return settlements

    def _commit(
        self, settlements: Sequence[Settlement], turns: Sequence[Turn], touched: Sequence[Held], now: float
    ) -> tuple[Advanced, Collection[str]]:
        parents = {item.execution_id for item in settlements if item.requires not in (None, item.execution_id)}
        foreign = {item.execution_id for item in settlements if item.execution_id not in self._held}
        for turn in turns:
            if turn.execution_id in parents and not turn.status.is_terminal:
                turn.wake_at = now
        result = self._store.commit(self._worker, settlements, turns, foreign | parents, now)
        if self.watch is not None:
            self.watch.committed(settlements, turns, touched, result)
        for execution_id in result.stale:
            log.warning("turn was overtaken by another worker", extra={"execution_id": execution_id})
            self._held.drop(execution_id)
        advanced = Advanced(settled={job_id_of(s.execution_id, s.call_id, s.attempt) for s in settlements})
        for held in touched:
            if held.row.id not in result.stale:
                advanced.cancelled += held.take_cancelled_jobs()
                advanced.settled |= {
                    job_id_of(held.row.id, call.call_id, call.attempt) for call in held.take_ended_elsewhere()
                }
        for turn in turns:
            if turn.execution_id not in result.stale:
                self._after(turn, advanced)
        advanced.is_busy = result.is_more or bool(parents)
        if any(turn.status.is_terminal or turn.settlements for turn in turns):
            self._close_children_of(touched)
        return advanced, result.ignored

    def _close_children_of(self, touched: Sequence[Held]) -> None:
        """See at once to children whose parent or call may just have ended; `close_children` would find them later."""
        if any(held.workflow.children for held in touched):
            self.close_children()

    def _after(self, turn: Turn, advanced: Advanced) -> None:
        """Bring what is held in line with the turn that has just become durable."""
        held = self._held.get(turn.execution_id)
        assert held is not None
        for call in turn.calls:
            if call.status is CallStatus.SUBMITTING:
                advanced.to_submit.append(DueCall(turn.execution_id, call))
            elif call.status is CallStatus.PENDING and call.executor is not None:
                advanced.pending.add(call.executor)
        if turn.wake_at is not None:
            advanced.wake_at = turn.wake_at if advanced.wake_at is None else min(advanced.wake_at, turn.wake_at)
        if turn.status.is_terminal:
            advanced.ended.append(turn.execution_id)
        held.apply(turn)
        if not turn.is_kept:
            self._held.drop(turn.execution_id)


def _lanes(processes: int) -> int:
    """How many turns are run at a time; each needs a sandbox process, and another processor to gain anything."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(_MOST_LANES, processes // 2, processors), 1)


def _is_refusal(error: BaseException) -> TypeGuard[StoreError]:
    """Whether the database works, and would not take what it was asked to store."""
    return isinstance(error, StoreError) and not isinstance(error, StoreUnreachable | SchemaMismatch)


def _newest(settlements: Iterable[Settlement]) -> list[Settlement]:
    """Of each call the outcome of its latest attempt: one commit says one thing about a call.

    An outcome of an attempt that is over may come again, because nobody has acknowledged it yet, together with that of the
    attempt which followed.
    """
    newest: dict[tuple[str, int], Settlement] = {}
    for item in settlements:
        key = (item.execution_id, item.call_id)
        if key not in newest or newest[key].attempt < item.attempt:
            newest[key] = item
    return list(newest.values())


def _end_of_child(row: ExecutionRow, turn: Turn) -> Settlement:
    """The outcome of the parent's call that waits for this execution, which ends with this turn."""
    assert row.parent is not None
    assert row.parent_call is not None
    if turn.status is ExecutionStatus.COMPLETED:
        status, outcome = CallStatus.COMPLETED, turn.output or "null"
    else:
        # A child that was cancelled is an ordinary failure to its parent, which was not.
        cancelled = Failure(
            "user", "RuntimeError", f"child {row.id!r} was cancelled: {turn.error}", bases=("Exception",)
        )
        status, outcome = CallStatus.FAILED, failure_text(turn.failure or cancelled)
    return Settlement(row.parent, row.parent_call, 1, status, outcome, turn.at, requires=row.id)


def _due_settlement(row: ExecutionRow, call: CallRow, due_at: float) -> Settlement:
    if call.kind is CallKind.TIMER:
        return _settlement(row, call, CallStatus.COMPLETED, "null", due_at)
    seconds = due_at - call.created_at
    failure = Failure("timeout", "TimeoutError", f"no signal {call.function!r} within {seconds:g} s")
    return _settlement(row, call, CallStatus.FAILED, failure_text(failure), due_at)


def _settlement(row: ExecutionRow, call: CallRow, status: CallStatus, outcome: str, now: float) -> Settlement:
    return Settlement(row.id, call.call_id, call.attempt, status, outcome, now)

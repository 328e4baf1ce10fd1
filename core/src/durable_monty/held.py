"""Executions that this process has claimed, as far as it knows them.

Everything here can be lost at any moment: it is a copy of what the store has, kept so that a step need not read what
the step before has written, and live sandboxes are a copy of snapshots.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from durable_monty.interpreter import Session, SourceMap
from durable_monty.models import CallStatus
from durable_monty.records import CallKind, CallRow, Claimed, Delivery, DueCall, NextAttempt, Settlement, Snapshot, Turn

if TYPE_CHECKING:
    from durable_monty.records import WorkflowRecord

MAX_KEPT_EXECUTIONS = 1000
MAX_KEPT_STATE_BYTES = 64 * 1024
_source_map = lru_cache(maxsize=64)(SourceMap)


class Held:
    """One claimed execution between its turns.

    Attributes:
        row: The execution as the last turn left it.
        open: Calls whose outcome is not known, by call id.
        channels: Those of them that wait for another task of the workflow, by call id.
        undelivered: Calls that have ended and whose outcome has not entered the sandbox, in the order in which they
            ended.
        delivered: Calls whose outcome has entered the live sandbox, which no turn has made durable yet; in order.
        unsaved: Their deliveries.
        snapshot: The stored snapshot, if it is small enough to be kept.
        session: A live sandbox, at `row.version` plus `unsaved`.
        cancelled_jobs: Calls that a cancellation ended, to be reported once that is durable.
        ended_elsewhere: Calls that were found to have ended in the store, through the service or another worker; to be
            reported, because a job of this process may still be open for them.
    """

    __slots__ = (
        "_functions",
        "_timed",
        "cancelled_jobs",
        "channels",
        "delivered",
        "ended_elsewhere",
        "next_batch",
        "open",
        "row",
        "session",
        "snapshot",
        "source_map",
        "undelivered",
        "unsaved",
        "workflow",
    )

    def __init__(self, claimed: Claimed) -> None:
        self.row = claimed.row
        self.workflow: WorkflowRecord = claimed.workflow
        self.source_map = _source_map(claimed.workflow.source, claimed.workflow.lines, claimed.workflow.filename)
        self.snapshot: Snapshot | None = claimed.snapshot
        self.session: Session | None = None
        self.open: dict[int, CallRow] = {}
        self.undelivered: dict[int, CallRow] = {}
        self.delivered: dict[int, CallRow] = {}
        self.unsaved: dict[int, Delivery] = {}
        # Apart from the open calls, because they are looked at in every turn and may be few among many.
        self._timed: dict[int, CallRow] = {}
        self._functions: set[int] = set()
        self.channels: dict[int, CallRow] = {}
        self.next_batch = claimed.row.next_batch
        self.cancelled_jobs: list[DueCall] = []
        self.ended_elsewhere: list[CallRow] = []
        self._take(claimed.live_calls)

    def refresh(self, claimed: Claimed) -> None:
        """Take over what others have written since: outcomes, a cancellation. The live sandbox stays."""
        self.row = claimed.row
        self._take(claimed.live_calls)
        if claimed.snapshot is not None:
            self.snapshot = claimed.snapshot

    @property
    def has_ended_calls(self) -> bool:
        """Whether an outcome is not durably delivered."""
        return bool(self.undelivered or self.delivered)

    @property
    def is_cancelling(self) -> bool:
        """Whether a cancellation was asked for and has not entered the workflow."""
        return self.row.cancel_deadline_at is not None and not self.row.is_cancel_delivered

    @property
    def waits_for_function(self) -> bool:
        """Whether a call of a host function is open."""
        return bool(self._functions)

    @property
    def timed(self) -> list[CallRow]:
        """The open calls that end by themselves at their due time: timers, and signals with a timeout."""
        return list(self._timed.values())

    def has_ended(self, item: Settlement) -> bool:
        """Whether the call is known to have ended and may be delivered by the next turn."""
        return item.call_id in self.undelivered or item.call_id in self.delivered

    def settle(self, item: Settlement) -> bool:
        """Take an outcome into the copy, unless it is late; returns whether it was taken.

        A later attempt than the one that is known here was begun by another worker. The store has the last word.
        """
        call = self.open.get(item.call_id)
        if call is None or call.attempt > item.attempt:
            return False
        del self.open[item.call_id]
        self._timed.pop(item.call_id, None)
        self.channels.pop(item.call_id, None)
        self._functions.discard(item.call_id)
        call.status, call.outcome, call.ended_at = item.status, item.outcome, item.ended_at
        call.attempt = item.attempt
        self.undelivered[item.call_id] = call
        return True

    def reattempt(self, item: NextAttempt) -> None:
        """Take over that an attempt failed and the next one is due."""
        call = self.open.get(item.call_id)
        if call is not None and call.attempt == item.attempt:
            # A copy: the one in hand belongs to the attempt that failed.
            self.open[item.call_id] = replace(
                call, status=CallStatus.PENDING, attempt=call.attempt + 1, lost=call.lost + item.lost, token=None
            )

    def note_delivery(self, batches: Sequence[Sequence[int]]) -> None:
        """Take over that outcomes have entered the sandbox, one inner sequence per resume."""
        for batch in batches:
            for position, call_id in enumerate(batch):
                self.unsaved[call_id] = Delivery(call_id, self.next_batch, position)
                self.delivered[call_id] = self.undelivered.pop(call_id)
            self.next_batch += 1

    def apply(self, turn: Turn) -> None:
        """Become what the turn has made durable."""
        self.row.version += 1
        self.row.status = turn.status
        if self.row.started_at is None:
            self.row.started_at = turn.at
        self.row.wake_at = turn.wake_at
        self.row.next_batch = self.next_batch = turn.next_batch
        self.row.is_cancel_delivered = turn.is_cancel_delivered
        self.row.crashes = 0
        self.unsaved.clear()
        self.delivered.clear()
        for call_id, scope in turn.rescoped.items():
            known = self.open.get(call_id) or self.undelivered.get(call_id)
            if known is not None:
                known.scope = scope
        for call in turn.calls:
            if call.batch is None:
                self._add(call)
        if turn.snapshot is not None:
            self.snapshot = turn.snapshot if len(turn.snapshot.data) <= MAX_KEPT_STATE_BYTES else None

    def take_cancelled_jobs(self) -> list[DueCall]:
        """The function calls that a cancellation or a lost race ended; each is returned once."""
        jobs, self.cancelled_jobs = self.cancelled_jobs, []
        return [job for job in jobs if job.row.kind is CallKind.FUNCTION]

    def take_ended_elsewhere(self) -> list[CallRow]:
        """The calls that others ended; each is returned once."""
        calls, self.ended_elsewhere = self.ended_elsewhere, []
        return calls

    def close_session(self) -> None:
        """Give the live sandbox back; what it was told and no turn recorded will be delivered again."""
        if self.session is not None:
            self.session.close()
            self.session = None
        self.undelivered = {**self.delivered, **self.undelivered}
        self.delivered = {}
        self.unsaved.clear()
        self.next_batch = self.row.next_batch

    def _take(self, live: Mapping[int, CallRow]) -> None:
        """Replace the copy of the calls by what the store has."""
        self.open, self.undelivered = {}, {}
        self._timed, self.channels, self._functions = {}, {}, set()
        for call in live.values():
            if call.call_id not in self.unsaved:
                self._add(call)

    def _add(self, call: CallRow) -> None:
        if call.status.is_terminal:
            self.undelivered[call.call_id] = call
            self.ended_elsewhere.append(call)
            return
        self.open[call.call_id] = call
        if call.kind is CallKind.FUNCTION:
            self._functions.add(call.call_id)
        elif call.kind is CallKind.CHANNEL:
            self.channels[call.call_id] = call
        elif call.due_at is not None:
            self._timed[call.call_id] = call


class HeldExecutions:
    """The executions that one engine holds. Several threads may run turns, each of another execution.

    Args:
        max_sessions: Most live sandboxes to keep; each is a process. 0: none outlives its turn.
    """

    def __init__(self, max_sessions: int) -> None:
        self._items: dict[str, Held] = {}
        self._max_sessions = max_sessions
        # Those whose sandbox lives and is not in use, the least recently used first.
        self._with_session: dict[str, Held] = {}
        self._lock = threading.Lock()

    def __contains__(self, execution_id: object) -> bool:
        return execution_id in self._items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._items.values())

    def get(self, execution_id: str) -> Held | None:
        """The held execution, or None."""
        return self._items.get(execution_id)

    def put(self, held: Held) -> None:
        """Hold an execution, in place of an older copy of it."""
        self.drop(held.row.id)
        self._items[held.row.id] = held

    def drop(self, execution_id: str) -> None:
        """Forget an execution; its claim in the store is not touched."""
        with self._lock:
            self._with_session.pop(execution_id, None)
        held = self._items.pop(execution_id, None)
        if held is not None:
            held.close_session()

    def take_all(self) -> list[Held]:
        """Forget every execution and return them."""
        held = list(self._items.values())
        self._items.clear()
        self._with_session.clear()
        for item in held:
            item.close_session()
        return held

    def begin(self, held: Held) -> None:
        """Its sandbox is in use from now on, until `limit_sessions`: nobody closes it to make room."""
        with self._lock:
            self._with_session.pop(held.row.id, None)

    def limit_sessions(self, keep: Held) -> None:
        """Close live sandboxes beyond the limit: the least recently used, those with nothing unsaved first."""
        # Until a victim is closed nobody may `begin` with it.
        with self._lock:
            if keep.session is not None:
                self._with_session[keep.row.id] = keep
            while len(self._with_session) > self._max_sessions:
                others = [held for held in self._with_session.values() if held is not keep] or [keep]
                victim = next((held for held in others if not held.unsaved), others[0])
                del self._with_session[victim.row.id]
                victim.close_session()

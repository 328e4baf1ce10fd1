"""What a turn asks of the store itself: done in the transaction that records the turn, so that there is no in-between.

Signals that are waited for, signals to other executions, and children.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from durable_monty import codec
from durable_monty.models import CallStatus, ExecutionStatus, Failure
from durable_monty.records import CallKind, CallRow, ExecutionRow, Turn, WorkflowRecord
from durable_monty.store.attempts import failure_text
from durable_monty.store.rows import execution_values
from durable_monty.store.schema import calls, executions
from durable_monty.store.signals import buffer, end_call, match, those_with_signals
from durable_monty.store.vault import vault_of

_MAX_ID_CHARACTERS = 100
_ENDED = tuple(status.value for status in ExecutionStatus if status.is_terminal)


class _CannotBeDone(Exception):
    """Raised with the failure that the workflow sees."""

    def __init__(self, kind: str, message: str) -> None:
        self.failure = Failure("user", kind, message, bases=("Exception",))


def has_effects(turn: Turn) -> bool:
    """Whether `perform` has something to do."""
    return bool(turn.rescoped) or any(call.kind.is_done_by_store for call in turn.calls)


class Effects:
    """Does what turns ask for, within one transaction.

    Args:
        workflow: Gives the workflow with a digest.
    """

    def __init__(self, connection: Connection, workflow: Callable[[str], WorkflowRecord], now: float) -> None:
        self._connection = connection
        self._workflow = workflow
        self._now = now
        self.is_more = False
        """Whether something ended, so that an execution can be advanced again."""

    def perform(self, turn: Turn, *, has_signals: bool) -> None:
        """Do what a recorded turn asks for.

        Args:
            has_signals: Whether a signal for it was buffered when the turn was recorded, which holds the execution's row.
        """
        for call_id, scope in turn.rescoped.items():
            this = (calls.c.execution_id == turn.execution_id) & (calls.c.call_id == call_id)
            self._connection.execute(update(calls).where(this).values(scope=scope))
        open_calls = [call for call in turn.calls if call.kind.is_done_by_store and not call.status.is_terminal]
        if has_signals and any(call.kind is CallKind.SIGNAL for call in open_calls):
            self.is_more = match(self._connection, turn.execution_id, self._now, must_read=True) or self.is_more
        for call in open_calls:
            if call.kind is not CallKind.SIGNAL:
                self._do(turn.execution_id, call)

    def _do(self, execution_id: str, call: CallRow) -> None:
        args, kwargs = codec.loads(call.arguments)
        try:
            if call.kind is CallKind.SEND:
                outcome: str | None = self._send(*args, **kwargs)
            else:
                outcome = self._start(execution_id, call, *args, **kwargs)
        except _CannotBeDone as refused:
            self._end(execution_id, call, CallStatus.FAILED, failure_text(refused.failure))
            return
        if outcome is not None:
            self._end(execution_id, call, CallStatus.COMPLETED, outcome)

    def _end(self, execution_id: str, call: CallRow, status: CallStatus, outcome: str) -> None:
        end_call(self._connection, execution_id, call.call_id, status, outcome, self._now)
        self.is_more = True

    def _send(self, execution_id: str, name: str, payload: Any = None) -> str:
        target = select(executions.c.status).where(executions.c.id == execution_id).with_for_update()
        status = self._connection.scalar(target)
        if status is None:
            raise _CannotBeDone("ValueError", f"sending signal {name!r}: there is no execution {execution_id!r}")
        if status in _ENDED:
            raise _CannotBeDone("ValueError", f"sending signal {name!r}: execution {execution_id!r} is {status}")
        buffer(self._connection, execution_id, name, codec.dumps(payload), self._now)
        match(self._connection, execution_id, self._now)
        return "null"

    def _start(
        self,
        parent: str,
        call: CallRow,
        workflow: str,
        inputs: dict[str, Any] | None = None,
        execution_id: str | None = None,
        parent_close: str = "cancel",
    ) -> str | None:
        """Start a child; returns what the call gives, None if it waits for the child's end."""
        own = self._connection.scalar(select(executions.c.workflow).where(executions.c.id == parent))
        record = self._child_record(self._workflow(str(own)), workflow)
        given = inputs or {}
        _check_inputs(record, given)
        id_ = execution_id or _child_id(parent, call.call_id)
        if self._connection.scalar(select(executions.c.id).where(executions.c.id == id_)) is not None:
            raise _CannotBeDone("ValueError", f"starting child {workflow!r}: there is an execution {id_!r} already")
        row = ExecutionRow(
            id_,
            record.digest,
            ExecutionStatus.SCHEDULED,
            0,
            codec.dumps(given),
            created_at=self._now,
            wake_at=self._now,
            parent=parent,
            parent_call=call.call_id if call.kind is CallKind.CHILD else None,
            parent_close=parent_close,
        )
        self._connection.execute(insert(executions).values(execution_values(row, vault_of(self._connection))))
        self.is_more = True
        return None if call.kind is CallKind.CHILD else codec.dumps(id_)

    def _child_record(self, parent: WorkflowRecord, name: str) -> WorkflowRecord:
        digest = parent.children.get(name)
        if digest is None:
            known = ", ".join(sorted(parent.children)) or "none"
            raise _CannotBeDone(
                "ValueError",
                f"starting child {name!r}: workflow {parent.name!r} knows no such workflow, it knows: {known}; name it "
                "in the workflow's module, or pass it to start_execution(workflows=[...])",
            )
        return self._workflow(digest)


def _check_inputs(record: WorkflowRecord, given: dict[str, Any]) -> None:
    missing = [name for name, is_needed in record.parameters.items() if is_needed and name not in given]
    extra = [name for name in given if name not in record.parameters]
    if missing or extra:
        raise _CannotBeDone(
            "TypeError",
            f"starting child {record.name!r} with inputs {sorted(given)}: "
            + "; ".join([f"{name!r} is missing" for name in missing] + [f"it takes no {name!r}" for name in extra]),
        )


def _child_id(parent: str, call_id: int) -> str:
    """The id of a child that was given none: readable as long as it is short enough."""
    readable = f"{parent}-{call_id}"
    if len(readable) <= _MAX_ID_CHARACTERS:
        return readable
    return hashlib.sha256(readable.encode()).hexdigest()[:40]


def perform(
    connection: Connection, turns: Sequence[Turn], workflow: Callable[[str], WorkflowRecord], now: float
) -> bool:
    """Do what recorded turns ask for; returns whether an execution can be advanced again at once."""
    effects = Effects(connection, workflow, now)
    waiting = {turn.execution_id for turn in turns if any(call.kind is CallKind.SIGNAL for call in turn.calls)}
    having = those_with_signals(connection, waiting) if waiting else set()
    for turn in turns:
        effects.perform(turn, has_signals=turn.execution_id in having)
    return effects.is_more

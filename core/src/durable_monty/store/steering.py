"""What people ask of an execution that is under way, or has failed: cancel, pause, resume, retry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection, RowMapping, delete, or_, select, update

from durable_monty import codec
from durable_monty.errors import ExecutionConflict
from durable_monty.models import CallStatus, ExecutionStatus
from durable_monty.records import CallKind, ExecutionRow
from durable_monty.store import signals
from durable_monty.store.attempts import cancelled_child, failure_text
from durable_monty.store.connections import Connections
from durable_monty.store.notices import tell
from durable_monty.store.rows import execution_row
from durable_monty.store.schema import calls, executions, snapshots
from durable_monty.store.signals import end_call
from durable_monty.store.vault import vault_of

_ALIVE = tuple(status.value for status in ExecutionStatus if not status.is_terminal)
_ENDED = tuple(status.value for status in ExecutionStatus if status.is_terminal)


class Find(Protocol):
    """Reads an execution; raises `ExecutionNotFound` if there is none."""

    def __call__(self, connection: Connection, execution_id: str, *, is_locked: bool = False) -> ExecutionRow:
        """Read it, and lock its row if that is wanted."""


class Steering:
    """What people ask of executions, each one transaction."""

    def __init__(self, connections: Connections, find: Find) -> None:
        self._connections = connections
        self._find = find

    @contextmanager
    def _locked(self, execution_id: str) -> Iterator[tuple[Connection, ExecutionRow]]:
        """A transaction that has this execution to itself."""
        with self._connections.write() as connection:
            yield connection, self._find(connection, execution_id, is_locked=True)

    def request_cancel(self, execution_id: str, reason: str, deadline_at: float, now: float) -> ExecutionRow:
        """Ask for an execution's cancellation; one that has not begun is cancelled at once.

        Returns:
            The execution as it was before.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        with self._locked(execution_id) as (connection, row):
            if not row.status.is_terminal and row.cancel_deadline_at is None:
                _request_cancel(connection, row, reason, deadline_at, now)
                tell(connection)
            return row

    def children_to_cancel(self, limit: int = 100) -> list[str]:
        """Living children that are to end with their parent, or with the parent's call, which has ended."""
        with self._connections.read() as connection:
            return _children_to_cancel(connection, limit)

    def pause(self, execution_id: str, reason: str | None) -> ExecutionRow:
        """Keep an execution from being advanced; a paused or ended one stays what it is.

        Returns:
            The execution as it was before.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        with self._locked(execution_id) as (connection, row):
            if not row.status.is_terminal and row.status is not ExecutionStatus.PAUSED:
                _pause(connection, row, reason)
            return row

    def resume(self, execution_id: str, now: float) -> ExecutionRow:
        """Let a paused execution go on; any other stays what it is.

        Returns:
            The execution as it was before.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        with self._locked(execution_id) as (connection, row):
            if row.status is ExecutionStatus.PAUSED:
                _resume(connection, row, now)
                tell(connection)
            return row

    def retry(self, execution_id: str, now: float) -> ExecutionRow:
        """Let a failed execution go on from its last snapshot; any other stays what it is.

        Returns:
            The execution as it was before.

        Raises:
            ExecutionNotFound: No execution has this id.
            ExecutionConflict: Another one with its singleton key lives.
        """
        with self._locked(execution_id) as (connection, row):
            if row.status is ExecutionStatus.FAILED:
                _require_free_key(connection, row)
                _retry(connection, row, now)
                tell(connection)
            return row

    def signal(
        self,
        execution_id: str,
        name: str,
        payload: str,
        now: float,
        accepts: Callable[[str, int], None] = lambda arguments, line: None,
    ) -> ExecutionRow:
        """Put a signal behind those of its name, and give them to the calls that wait for them.

        Args:
            accepts: Asked, with the arguments and the line of the call that would get it, whether it may be given;
                what it raises is raised, and nothing is stored.

        Returns:
            The execution as it was before; an ended one gets nothing.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        with self._locked(execution_id) as (connection, row):
            if row.status.is_terminal:
                return row
            for _, _, arguments, line in signals.waiting(connection, execution_id, name)[:1]:
                accepts(arguments, line)
            signals.buffer(connection, execution_id, name, payload, now)
            if signals.match(connection, execution_id, now):
                tell(connection)
            return row


def _request_cancel(connection: Connection, row: ExecutionRow, reason: str, deadline_at: float, now: float) -> None:
    """Ask for the cancellation of a living execution, whose row is locked; see `Store.request_cancel`."""
    values: dict[str, Any] = {"cancel_reason": reason}
    if row.version == 0 and row.worker is None:
        values |= {"status": ExecutionStatus.CANCELLED.value, "ended_at": now, "wake_at": None}
        if row.parent is not None and row.parent_call is not None:
            failure = failure_text(cancelled_child(row.id, reason))
            end_call(connection, row.parent, row.parent_call, CallStatus.FAILED, failure, now)
    else:
        values |= {"cancel_deadline_at": deadline_at, "wake_at": now}
        if row.status is ExecutionStatus.PAUSED:
            values["status"] = at_rest(row)
    connection.execute(update(executions).where(executions.c.id == row.id).values(values))


def _pause(connection: Connection, row: ExecutionRow, reason: str | None) -> None:
    """Keep a living execution, whose row is locked, from being advanced. A turn in hand is not recorded."""
    connection.execute(
        update(executions)
        .where(executions.c.id == row.id)
        .values(status=ExecutionStatus.PAUSED.value, worker=None, note=reason or row.note)
    )


def _resume(connection: Connection, row: ExecutionRow, now: float) -> None:
    """Let a paused execution, whose row is locked, go on."""
    connection.execute(
        update(executions)
        .where(executions.c.id == row.id)
        .values(status=at_rest(row), worker=None, crashes=0, wake_at=now)
    )


def _require_free_key(connection: Connection, row: ExecutionRow) -> None:
    if row.singleton_key is None:
        return
    same = select(executions.c.id).where(executions.c.singleton_key == row.singleton_key)
    living = connection.scalar(same.where(executions.c.status.in_(_ALIVE)))
    if living is not None:
        raise ExecutionConflict(
            f"retrying execution {row.id!r}: {living!r} with the same singleton key {row.singleton_key!r} lives; wait "
            "for its end, or cancel it"
        )


def _retry(connection: Connection, row: ExecutionRow, now: float) -> None:
    """Let a failed execution, whose row is locked, go on from its last snapshot: its last turn has not happened.

    Calls that failed and whose failure that turn delivered are made again, as their next attempt.
    """
    undone = json.loads(row.last_turn or "{}")
    of = calls.c.execution_id == row.id
    connection.execute(delete(calls).where(of, calls.c.call_id.in_(undone.get("calls", []))))
    for call_id, scope in undone.get("scopes", {}).items():
        connection.execute(update(calls).where(of, calls.c.call_id == int(call_id)).values(scope=scope))
    in_last_turn = or_(calls.c.batch >= undone.get("batch", 0), calls.c.call_id.in_(undone.get("cancelled", [])))
    ended_badly = calls.c.status.in_((CallStatus.FAILED.value, CallStatus.CANCELLED.value))
    for call in connection.execute(select(calls).where(of, in_last_turn, ended_badly)).mappings().all():
        values = _made_again(connection, call, now)
        connection.execute(update(calls).where(of, calls.c.call_id == call["call_id"]).values(values))
    connection.execute(update(calls).where(of, in_last_turn).values(batch=None, position=None))
    version = connection.scalar(select(snapshots.c.version).where(snapshots.c.execution_id == row.id)) or 0
    connection.execute(
        update(executions)
        .where(executions.c.id == row.id)
        .values(
            status=(ExecutionStatus.WAITING if version else ExecutionStatus.SCHEDULED).value,
            version=version,
            next_batch=undone.get("batch", 0),
            worker=None,
            wake_at=now,
            ended_at=None,
            error=None,
            last_turn=None,
            crashes=0,
            # It has begun: a later start with the key is another execution.
            debounce_key=None,
            deadline_at=None,
            cancel_deadline_at=None,
            cancel_reason=None,
            is_cancel_delivered=0,
            # Notes are not encrypted.
            note=f"retried after {'a failure' if vault_of(connection).is_hiding else _last_line(row.error)}",
        )
    )


def _last_line(error: str | None) -> str:
    return (error or "a failure").strip().splitlines()[-1]


def _made_again(connection: Connection, call: RowMapping, now: float) -> dict[str, Any]:
    """What a call becomes that is to have another outcome than the one it got."""
    values: dict[str, Any] = {"outcome": None, "ended_at": None, "worker": None, "token": None}
    if call["kind"] == CallKind.FUNCTION:
        return {**values, "status": CallStatus.PENDING.value, "attempt": call["attempt"] + 1, "due_at": now}
    values["status"] = CallStatus.SUBMITTED.value
    if call["kind"] == CallKind.SIGNAL:
        arguments = vault_of(connection).show(call["arguments"], "arguments", call["execution_id"], call["call_id"])
        seconds = codec.loads(arguments)[0][1]
        return {**values, "due_at": None if seconds is None else now + seconds}
    if call["kind"] == CallKind.TIMER:
        return {**values, "due_at": now}
    child = (executions.c.parent == call["execution_id"]) & (executions.c.parent_call == call["call_id"])
    row = connection.execute(select(executions).where(child).with_for_update()).mappings().first()
    if row is not None and row["status"] == ExecutionStatus.FAILED:
        _retry(connection, execution_row(row, vault_of(connection)), now)
        return values
    # A child that was cancelled, or never came to be, stays what it is: the same outcome again.
    return {}


def at_rest(row: ExecutionRow) -> str:
    """What an execution that nobody holds is: `waiting`, or `scheduled` if it has not begun."""
    return (ExecutionStatus.WAITING if row.version else ExecutionStatus.SCHEDULED).value


def _children_to_cancel(connection: Connection, limit: int) -> list[str]:
    """Living children that are to end with their parent, or with the parent's call, which has ended."""
    parents = executions.alias()
    awaited = calls.alias()
    query = (
        select(executions.c.id)
        .join(parents, parents.c.id == executions.c.parent)
        .outerjoin(
            awaited, (awaited.c.execution_id == executions.c.parent) & (awaited.c.call_id == executions.c.parent_call)
        )
        .where(
            executions.c.parent.isnot(None),
            executions.c.status.in_(_ALIVE),
            executions.c.parent_close == "cancel",
            executions.c.cancel_deadline_at.is_(None),
            or_(parents.c.status.in_(_ENDED), awaited.c.status == CallStatus.CANCELLED.value),
        )
        .limit(limit)
    )
    return list(connection.scalars(query))

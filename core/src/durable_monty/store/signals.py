"""Signals: buffered in their order until a call waits for them.

Whoever brings the two together holds the execution's row, so that one that came earlier is never overtaken.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select, update

from durable_monty.codec import Unreadable
from durable_monty.models import CallStatus
from durable_monty.records import CallKind
from durable_monty.store.fixed import THESE, Fixed
from durable_monty.store.schema import OPEN_STATUSES, calls, executions, signals
from durable_monty.store.vault import vault_of

_WITH_SIGNALS = Fixed(f"SELECT DISTINCT execution_id FROM signals WHERE execution_id IN {THESE}")


class UnreadableSignal(Exception):
    """A call waits for a signal that is there and cannot be decrypted here.

    Attributes:
        execution_id: Whose signal it is.
        reason: What was found, and what to do.
    """

    def __init__(self, execution_id: str, reason: str) -> None:
        self.execution_id = execution_id
        self.reason = reason
        super().__init__(reason)


def buffer(connection: Connection, execution_id: str, name: str, payload: str, now: float) -> None:
    """Put a signal behind those of its name."""
    hidden = vault_of(connection).hide(payload, "signal", execution_id, name)
    connection.execute(insert(signals).values(execution_id=execution_id, name=name, payload=hidden, sent_at=now))


def those_with_signals(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Those of these executions for which a signal is buffered; one query, however many they are."""
    asked = json.dumps(list(ids))
    return {row["execution_id"] for row in _WITH_SIGNALS.mappings(connection, {"ids": asked})}


def waiting(connection: Connection, execution_id: str, name: str | None = None) -> list[tuple[int, str, str, int]]:
    """The calls that wait for a signal, in their order: (call id, name, arguments, line)."""
    query = (
        select(calls.c.call_id, calls.c.function, calls.c.arguments, calls.c.line)
        .where(calls.c.execution_id == execution_id, calls.c.batch.is_(None), calls.c.status.in_(OPEN_STATUSES))
        .where(calls.c.kind == CallKind.SIGNAL.value)
        .order_by(calls.c.call_id)
    )
    if name is not None:
        query = query.where(calls.c.function == name)
    show = vault_of(connection).show
    return [
        (row.call_id, row.function, show(row.arguments, "arguments", execution_id, row.call_id), row.line)
        for row in connection.execute(query)
    ]


def match(connection: Connection, execution_id: str, now: float, *, must_read: bool = False) -> bool:
    """Give buffered signals to the calls that wait for them, both in their order; returns whether any was given.

    The execution's row must be locked by this transaction. A signal that cannot be decrypted stays where it is, and with
    it those behind it, for whoever has the key.

    Args:
        must_read: Whether that is an error: nobody looks again at a call that has begun to wait.

    Raises:
        UnreadableSignal: As `must_read` says.
    """
    wanted: dict[str, list[int]] = defaultdict(list)
    for call_id, name, _, _ in waiting(connection, execution_id):
        wanted[name].append(call_id)
    is_given = False
    for name, call_ids in wanted.items():
        there = (
            select(signals.c.id, signals.c.payload)
            .where(signals.c.execution_id == execution_id, signals.c.name == name)
            .order_by(signals.c.id)
            .limit(len(call_ids))
        )
        for call_id, row in zip(call_ids, connection.execute(there).all(), strict=False):
            payload = vault_of(connection).show(row.payload, "signal", execution_id, name)
            if isinstance(payload, Unreadable):
                if must_read:
                    raise UnreadableSignal(execution_id, payload.reason)
                break
            connection.execute(delete(signals).where(signals.c.id == row.id))
            end_call(connection, execution_id, call_id, CallStatus.COMPLETED, payload, now)
            is_given = True
    return is_given


def end_call(
    connection: Connection, execution_id: str, call_id: int, status: CallStatus, outcome: str, now: float
) -> None:
    """Record the outcome of a call that no executor runs, and wake its execution."""
    hidden = vault_of(connection).hide(outcome, "outcome", execution_id, call_id)
    connection.execute(
        update(calls)
        .where(calls.c.execution_id == execution_id, calls.c.call_id == call_id, calls.c.status.in_(OPEN_STATUSES))
        .values(status=status.value, outcome=hidden, ended_at=now, due_at=None)
    )
    connection.execute(update(executions).where(executions.c.id == execution_id).values(wake_at=now))

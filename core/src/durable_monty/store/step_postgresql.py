"""One step of one execution on PostgreSQL: what a chain of calls commits again and again.

A turn that delivers at most one outcome, which becomes durable with it, and makes at most one call. It is recorded
whole or not at all: if anything is not as the worker believes, the statement does nothing, and the general one of
`durable_monty.store.commit_postgresql` finds out what can be recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Float, Integer, Text

from durable_monty.models import ExecutionStatus
from durable_monty.records import Settlement, Turn
from durable_monty.store.rows import call_values, settlement_values, snapshot_values, turn_values
from durable_monty.store.schema import calls

# A call that has just been made has nothing in these. Left out, because psycopg remembers how it has parsed a statement
# of at most 50 parameters.
_NOT_YET = ("token", "ended_at", "outcome", "batch", "position", "progress")
_KINDS = {Text: "text", Integer: "int", Float: "float8"}
_CALL_COLUMNS = {column.name: _KINDS[type(column.type)] for column in calls.c if column.name not in _NOT_YET}
_TAKEN = """taken AS (
    SELECT 1 FROM calls
    WHERE execution_id = %(id)s AND call_id = %(ended_call)s AND attempt = %(ended_attempt)s
        AND status IN ('pending', 'submitting', 'submitted')
    FOR UPDATE
), """
_MOVED = """moved AS (
    UPDATE executions SET version = version + 1, worker = %(keep)s, status = %(status)s, next_batch = %(next_batch)s,
        wake_at = CASE WHEN %(ended_at)s::float8 IS NOT NULL OR wake_at IS NOT DISTINCT FROM %(seen_wake_at)s
            THEN %(wake_at)s ELSE wake_at END,
        started_at = coalesce(started_at, %(at)s), ended_at = %(ended_at)s, output = %(output)s, error = %(error)s,
        note = coalesce(%(note)s, note), crashes = 0, last_turn = %(last_turn)s,
        is_cancel_delivered = %(is_cancel_delivered)s
    WHERE id = %(id)s AND version = %(version)s AND worker = %(worker)s"""
_SETTLED = """, settled AS (
    UPDATE calls SET status = %(ended_status)s, outcome = %(outcome)s, ended_at = %(call_ended_at)s, worker = NULL,
        due_at = NULL, expires_at = NULL, batch = %(batch)s, position = %(position)s
    FROM moved WHERE execution_id = moved.id AND call_id = %(ended_call)s
)"""
_MADE = f""", made AS (
    INSERT INTO calls ({", ".join(_CALL_COLUMNS)})
    SELECT {", ".join(f"%(new_{name})s::{kind}" for name, kind in _CALL_COLUMNS.items())} FROM moved
)"""
_PUT = """, put AS (
    INSERT INTO snapshots (execution_id, version, monty_version, format, digest, snapshot)
    SELECT moved.id, %(version)s + 1, %(monty_version)s, %(format)s, %(digest)s, %(snapshot)s FROM moved
    ON CONFLICT (execution_id) DO UPDATE SET version = excluded.version, monty_version = excluded.monty_version,
        format = excluded.format, digest = excluded.digest, snapshot = excluded.snapshot
)"""
_DROPPED = """, dropped AS (
    DELETE FROM snapshots s USING moved WHERE s.execution_id = moved.id
)"""
_DROPS = (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED)


def is_step(settlements: Sequence[Settlement], turns: Sequence[Turn], wake: Collection[str]) -> bool:
    """Whether `commit_step` can record this."""
    if len(turns) != 1 or wake or len(settlements) > 1:
        return False
    (turn,) = turns
    delivered = [(turn.execution_id, item.call_id, None) for item in turn.deliveries]
    ended = [(item.execution_id, item.call_id, item.requires) for item in settlements]
    return (
        delivered == ended
        and len(turn.calls) <= 1
        and not turn.cancelled
        and not any(call.status.is_terminal for call in turn.calls)
    )


def commit_step(driver: Any, worker: str, settlements: Sequence[Settlement], turn: Turn) -> bool:
    """Record a turn as a transaction of its own; returns False if nothing was recorded.

    Args:
        driver: psycopg's connection.
    """
    parameters = turn_values(turn, worker)
    for item, delivery in zip(settlements, turn.deliveries, strict=True):
        values = settlement_values(item, delivery)
        parameters |= {
            "ended_call": item.call_id,
            "ended_attempt": item.attempt,
            "ended_status": values["status"],
            "outcome": item.outcome,
            "call_ended_at": item.ended_at,
            "batch": delivery.batch,
            "position": delivery.position,
        }
    for call in turn.calls:
        values = call_values(turn.execution_id, call)
        parameters |= {f"new_{name}": values[name] for name in _CALL_COLUMNS}
    if turn.snapshot is not None:
        parameters |= snapshot_values(turn) | {"version": turn.version}
    statement = _statement(
        bool(settlements), bool(turn.calls), turn.snapshot is not None, turn.snapshot is None and turn.status in _DROPS
    )
    return driver.execute(statement, parameters).fetchone() is not None


@cache
def _statement(has_outcome: bool, has_call: bool, has_snapshot: bool, drops_snapshot: bool) -> str:
    parts = [
        "WITH ",
        _TAKEN if has_outcome else "",
        _MOVED,
        " AND EXISTS (TABLE taken)" if has_outcome else "",
        " RETURNING id)",
        _SETTLED if has_outcome else "",
        _MADE if has_call else "",
        _PUT if has_snapshot else "",
        _DROPPED if drops_snapshot else "",
        " SELECT id FROM moved",
    ]
    return " ".join("".join(parts).split())

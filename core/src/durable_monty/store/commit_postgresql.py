"""The transaction at the heart of it, on PostgreSQL: one statement, whatever there is to record.

Everything goes over as JSON, one document per table, so that a commit is one round trip and one transaction for one
step or for a thousand; as arrays, a column each, preparing the parameters took longer than the server did.
Parts of one statement see the database as it was before it, and none may touch a row that another part touches:
a call that ends and is delivered at once is therefore one row of `news`, and an execution is either moved by its
turn or, if that was stale, woken.

What happens most often has a statement of its own, `durable_monty.store.step_postgresql`, that takes half as long.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from durable_monty.models import job_id_of
from durable_monty.records import CommitResult, Settlement, Turn
from durable_monty.store.rows import (
    call_values,
    needed_outcomes,
    settlement_values,
    snapshot_values,
    turn_values,
    unmoved,
)
from durable_monty.store.step_postgresql import commit_step, is_step


def _records(name: str, alias: str, columns: dict[str, str]) -> str:
    """The rows of one JSON parameter."""
    return f"json_to_recordset(%({name})s) AS {alias}({', '.join(f'{name} {kind}' for name, kind in columns.items())})"


_TURN_COLUMNS = {
    "id": "text",
    "version": "int",
    "keep": "text",
    "status": "text",
    "next_batch": "int",
    "wake_at": "float8",
    "seen_wake_at": "float8",
    "at": "float8",
    "ended_at": "float8",
    "output": "text",
    "error": "text",
    "note": "text",
    "is_cancel_delivered": "int",
    "last_turn": "text",
}
_NEWS_COLUMNS = {
    "execution_id": "text",
    "call_id": "int",
    "attempt": "int",
    "status": "text",
    "outcome": "text",
    "ended_at": "float8",
    "batch": "int",
    "position": "int",
    "requires": "text",
    "is_needed": "bool",
}
_SNAPSHOT_COLUMNS = {
    "execution_id": "text",
    "version": "int",
    "monty_version": "text",
    "format": "int",
    "digest": "text",
    "snapshot": "text",
}
_CANCEL_COLUMNS = {"execution_id": "text", "call_id": "int", "at": "float8"}

# A wake-up time that somebody has set since the turn began stays: what it stands for is not in the turn.
# `news` without a status are deliveries of outcomes that were recorded earlier; a delivery counts only with its turn.
# An execution that got an outcome without a turn is woken if another worker holds it by now: the row is locked to see
# who does. A turn is `blocked` if it relies on an outcome of a call that somebody else has ended, or begun anew, meanwhile.
_COMMIT = f"""
WITH turn AS (
    SELECT * FROM {_records("turns", "t", _TURN_COLUMNS)}
), news AS (
    SELECT * FROM {_records("news", "n", _NEWS_COLUMNS)}
), taken AS (
    SELECT c.execution_id, c.call_id FROM calls c JOIN news n USING (execution_id, call_id)
    WHERE n.status IS NOT NULL AND n.attempt = c.attempt AND c.status IN ('pending', 'submitting', 'submitted')
    FOR UPDATE OF c
), blocked AS (
    SELECT n.execution_id FROM news n LEFT JOIN taken t USING (execution_id, call_id)
    WHERE n.is_needed AND t.call_id IS NULL
), moved AS (
    UPDATE executions e SET version = e.version + 1, worker = t.keep, status = t.status, next_batch = t.next_batch,
        wake_at = CASE WHEN t.ended_at IS NOT NULL OR e.wake_at IS NOT DISTINCT FROM t.seen_wake_at THEN t.wake_at
            ELSE e.wake_at END,
        started_at = coalesce(e.started_at, t.at), ended_at = t.ended_at, output = t.output, error = t.error,
        note = coalesce(t.note, e.note), crashes = 0, last_turn = t.last_turn,
        is_cancel_delivered = t.is_cancel_delivered
    FROM turn t WHERE e.id = t.id AND e.version = t.version AND e.worker = %(worker)s
        AND e.id NOT IN (TABLE blocked)
    RETURNING e.id, e.status
), settled AS (
    UPDATE calls c SET status = coalesce(n.status, c.status), outcome = coalesce(n.outcome, c.outcome),
        ended_at = coalesce(n.ended_at, c.ended_at), worker = NULL, due_at = NULL, expires_at = NULL,
        batch = CASE WHEN m.id IS NOT NULL THEN n.batch ELSE c.batch END,
        position = CASE WHEN m.id IS NOT NULL THEN n.position ELSE c.position END
    FROM news n LEFT JOIN moved m ON m.id = n.execution_id LEFT JOIN moved r ON r.id = n.requires
        LEFT JOIN taken t ON t.execution_id = n.execution_id AND t.call_id = n.call_id
    WHERE c.execution_id = n.execution_id AND c.call_id = n.call_id AND (n.requires IS NULL OR r.id IS NOT NULL)
        AND ((n.status IS NULL AND m.id IS NOT NULL) OR t.call_id IS NOT NULL)
    RETURNING c.execution_id, c.call_id
), undone AS (
    UPDATE calls c SET status = 'cancelled', ended_at = x.at, worker = NULL, due_at = NULL, expires_at = NULL, batch = -1
    FROM {_records("cancelled", "x", _CANCEL_COLUMNS)}
    JOIN moved m ON m.id = x.execution_id
    WHERE c.execution_id = x.execution_id AND c.call_id = x.call_id
        AND c.status IN ('pending', 'submitting', 'submitted')
), made AS (
    INSERT INTO calls SELECT x.* FROM json_populate_recordset(NULL::calls, %(calls)s) x
    JOIN moved m ON m.id = x.execution_id
), put AS (
    INSERT INTO snapshots ({", ".join(_SNAPSHOT_COLUMNS)})
    SELECT x.execution_id, x.version, x.monty_version, x.format, decode(x.digest, 'base64'), decode(x.snapshot, 'base64')
    FROM {_records("snapshots", "x", _SNAPSHOT_COLUMNS)}
    JOIN moved m ON m.id = x.execution_id
    ON CONFLICT (execution_id) DO UPDATE SET version = excluded.version, monty_version = excluded.monty_version,
        format = excluded.format, digest = excluded.digest, snapshot = excluded.snapshot
), dropped AS (
    DELETE FROM snapshots s USING moved m
    WHERE s.execution_id = m.id AND m.status IN ('completed', 'cancelled')
), held AS (
    SELECT id, worker FROM executions WHERE id = ANY(%(unmoved)s::text[]) FOR UPDATE
), lost AS (
    SELECT id FROM held WHERE worker IS DISTINCT FROM %(worker)s
), woken AS (
    UPDATE executions e SET wake_at = %(now)s
    WHERE (e.id = ANY(%(wake)s::text[]) OR e.id IN (TABLE lost UNION SELECT id FROM turn))
        AND e.id NOT IN (SELECT id FROM moved)
        AND e.status IN ('scheduled', 'running', 'waiting')
    RETURNING e.id
), told AS (
    SELECT pg_notify(%(channel)s, '') WHERE EXISTS (SELECT 1 FROM woken)
)
SELECT id, NULL::int AS call_id FROM moved
UNION ALL SELECT execution_id, call_id FROM settled
UNION ALL SELECT id, -1 FROM lost
UNION ALL SELECT NULL, 0 FROM told
"""
# psycopg parses a statement of up to 4,096 characters once, and a longer one each time.
_COMMIT = re.sub(r"\s+", " ", _COMMIT)

CHANNEL = "durable_monty"
"""The channel on which workers are told that an execution can be advanced."""


def commit(
    connection: Connection,
    worker: str,
    settlements: Sequence[Settlement],
    turns: Sequence[Turn],
    wake: Collection[str],
    now: float,
) -> CommitResult:
    """Run inside a transaction of its own; see `Store.commit`."""
    driver: Any = connection.connection.driver_connection
    if is_step(settlements, turns, wake) and commit_step(driver, worker, settlements, turns[0]):
        return CommitResult(frozenset(), frozenset())
    parameters: dict[str, Any] = {
        "worker": worker,
        "now": now,
        "wake": list(wake),
        "unmoved": list(unmoved(settlements, turns, wake)),
        "channel": CHANNEL,
        "turns": _json(turn_values(turn, worker) for turn in turns),
        "news": _json(_news(settlements, turns)),
        "cancelled": _json(
            {"execution_id": turn.execution_id, "call_id": call_id, "at": turn.at}
            for turn in turns
            for call_id in turn.cancelled
        ),
        "calls": _json(call_values(turn.execution_id, call) for turn in turns for call in turn.calls),
        "snapshots": _json(_snapshot(turn) for turn in turns if turn.snapshot is not None),
    }
    moved: set[str] = set()
    lost: set[str] = set()
    settled: set[tuple[str, int]] = set()
    for execution_id, call_id in driver.execute(_COMMIT, parameters):
        if execution_id is None:
            continue
        if call_id is None:
            moved.add(execution_id)
        elif call_id < 0:
            lost.add(execution_id)
        else:
            settled.add((execution_id, call_id))
    return CommitResult(
        frozenset(turn.execution_id for turn in turns) - moved | lost,
        frozenset(
            job_id_of(item.execution_id, item.call_id, item.attempt)
            for item in settlements
            if (item.execution_id, item.call_id) not in settled
        ),
    )


def _news(settlements: Sequence[Settlement], turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Outcomes and deliveries, one row per call."""
    deliveries = {(turn.execution_id, item.call_id): item for turn in turns for item in turn.deliveries}
    needed = needed_outcomes(turns)
    news = []
    for item in settlements:
        key = (item.execution_id, item.call_id)
        news.append({**settlement_values(item, deliveries.pop(key, None)), "is_needed": key in needed})
    for (execution_id, call_id), delivery in deliveries.items():
        place = {"batch": delivery.batch, "position": delivery.position}
        news.append({"execution_id": execution_id, "call_id": call_id, **place})
    return news


def _snapshot(turn: Turn) -> dict[str, Any]:
    values = snapshot_values(turn)
    return {**values, "digest": _base64(values["digest"]), "snapshot": _base64(values["snapshot"])}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return json.dumps(list(rows), ensure_ascii=False, separators=(",", ":"))

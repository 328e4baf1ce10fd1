"""The transaction at the heart of it, on SQLite: short statements on the kept connection.

Plain SQL on the driver's own connection: what stands between costs several times what SQLite takes to run a statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection

from durable_monty.models import ExecutionStatus, job_id_of
from durable_monty.records import CommitResult, Delivery, Settlement, Turn
from durable_monty.store.rows import (
    CALL_COLUMNS,
    call_values,
    needed_outcomes,
    settlement_values,
    snapshot_values,
    turn_values,
    unmoved,
)

# A wake-up time that somebody has set since the turn began stays: what it stands for is not in the turn.
_TURN = """
UPDATE executions SET version = version + 1, worker = :keep, status = :status, next_batch = :next_batch,
    wake_at = CASE WHEN :ended_at IS NOT NULL OR wake_at IS :seen_wake_at THEN :wake_at ELSE wake_at END, started_at = coalesce(started_at, :at), ended_at = :ended_at, output = :output, error = :error,
    note = coalesce(:note, note), crashes = 0, last_turn = :last_turn,
    is_cancel_delivered = :is_cancel_delivered
WHERE id = :id AND version = :version AND worker = :worker
"""
_SETTLE = """
UPDATE calls SET status = :status, outcome = :outcome, ended_at = :ended_at, batch = :batch, position = :position,
    worker = NULL, due_at = NULL, expires_at = NULL
WHERE execution_id = :execution_id AND call_id = :call_id AND attempt = :attempt
    AND status IN ('pending', 'submitting', 'submitted')
"""
_IS_SETTLED = """
SELECT 1 FROM calls
WHERE execution_id = :execution_id AND call_id = :call_id AND attempt = :attempt AND status = :status
    AND ended_at = :ended_at AND outcome = :outcome AND batch IS :batch AND position IS :position
"""
_DELIVER = """
UPDATE calls SET batch = :batch, position = :position WHERE execution_id = :execution_id AND call_id = :call_id
"""
_CANCEL = """
UPDATE calls SET status = 'cancelled', ended_at = :at, worker = NULL, due_at = NULL, expires_at = NULL, batch = -1
WHERE execution_id = :execution_id AND call_id = :call_id AND status IN ('pending', 'submitting', 'submitted')
"""
_INSERT_CALL = f"""
INSERT INTO calls ({", ".join(CALL_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in CALL_COLUMNS)})
"""
_PUT_SNAPSHOT = """
INSERT INTO snapshots (execution_id, version, monty_version, format, digest, snapshot)
VALUES (:execution_id, :version, :monty_version, :format, :digest, :snapshot)
ON CONFLICT (execution_id) DO UPDATE SET version = excluded.version, monty_version = excluded.monty_version,
    format = excluded.format, digest = excluded.digest, snapshot = excluded.snapshot
"""
_DROP_SNAPSHOT = "DELETE FROM snapshots WHERE execution_id = :execution_id"
_WAKE = """
UPDATE executions SET wake_at = :now
WHERE id = :id AND status IN ('scheduled', 'running', 'waiting')
"""
_WAKE_LOST = f"{_WAKE} AND worker IS NOT :worker"


class LateDelivery(Exception):
    """A turn relies on an outcome that is refused, because somebody else has ended the call or begun its next attempt.

    Attributes:
        executions: Whose turns these are.
    """

    def __init__(self, executions: set[str]) -> None:
        self.executions = executions
        super().__init__(f"late deliveries in {sorted(executions)}")


def commit(
    connection: Connection,
    worker: str,
    settlements: Sequence[Settlement],
    turns: Sequence[Turn],
    wake: Collection[str],
    now: float,
) -> CommitResult:
    """Run inside a transaction; see `Store.commit`.

    Raises:
        LateDelivery: An outcome is refused that a turn relies on; nothing may be kept of this transaction.
    """
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    recorded = [turn for turn in turns if _run(driver, _TURN, [turn_values(turn, worker)])]
    stale = frozenset(turn.execution_id for turn in turns) - {turn.execution_id for turn in recorded}
    deliveries = {(turn.execution_id, item.call_id): item for turn in recorded for item in turn.deliveries}
    needed = needed_outcomes(recorded)
    wanted = [item for item in settlements if item.requires is None or item.requires not in stale]
    ignored = _settle(driver, wanted, deliveries)
    late = {
        item.execution_id
        for item in wanted
        if (item.execution_id, item.call_id) in needed
        and job_id_of(item.execution_id, item.call_id, item.attempt) in ignored
    }
    if late:
        raise LateDelivery(late)
    _run(
        driver,
        _DELIVER,
        [
            {"execution_id": key[0], "call_id": key[1], "batch": item.batch, "position": item.position}
            for key, item in deliveries.items()
        ],
    )
    for turn in recorded:
        _record(driver, turn)
    _run(driver, _WAKE, [{"id": execution_id, "now": now} for execution_id in {*wake, *stale}])
    lost = {
        execution_id
        for execution_id in unmoved(settlements, turns, wake)
        if _run(driver, _WAKE_LOST, [{"id": execution_id, "now": now, "worker": worker}])
    }
    return CommitResult(stale | lost, ignored)


def _settle(
    driver: sqlite3.Connection, settlements: Sequence[Settlement], deliveries: dict[tuple[str, int], Delivery]
) -> frozenset[str]:
    """Record outcomes, each together with its delivery if it has one; returns the job ids of the late ones."""
    rows = [settlement_values(item, deliveries.pop((item.execution_id, item.call_id), None)) for item in settlements]
    if _run(driver, _SETTLE, rows) == len(rows):
        return frozenset()
    return frozenset(
        job_id_of(item.execution_id, item.call_id, item.attempt)
        for item, row in zip(settlements, rows, strict=True)
        if driver.execute(_IS_SETTLED, row).fetchone() is None
    )


def _record(driver: sqlite3.Connection, turn: Turn) -> None:
    """Record what hangs on a turn whose execution row is written."""
    cancelled = [{"execution_id": turn.execution_id, "call_id": call_id, "at": turn.at} for call_id in turn.cancelled]
    _run(driver, _CANCEL, cancelled)
    _run(driver, _INSERT_CALL, [call_values(turn.execution_id, call) for call in turn.calls])
    if turn.snapshot is not None:
        _run(driver, _PUT_SNAPSHOT, [snapshot_values(turn)])
    elif turn.status in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED):
        # A failed one keeps its last good state, to be retried from.
        _run(driver, _DROP_SNAPSHOT, [{"execution_id": turn.execution_id}])


def _run(driver: sqlite3.Connection, sql: str, rows: Sequence[dict[str, Any]]) -> int:
    """Run once per row of parameters; returns how many rows of the table were touched."""
    if not rows:
        return 0
    return driver.execute(sql, rows[0]).rowcount if len(rows) == 1 else driver.executemany(sql, rows).rowcount

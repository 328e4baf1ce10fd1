"""Claiming executions for a worker, with what their next turn needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection

from durable_monty.records import CallRow, Claimed, DueCall, ExecutionRow, Snapshot, WorkflowRecord
from durable_monty.store.connections import Connections
from durable_monty.store.fixed import MAY_CLAIM, THESE, Fixed
from durable_monty.store.limits import RANK, in_order
from durable_monty.store.rows import CALL_COLUMNS, EXECUTION_COLUMNS, call_row, execution_row, snapshot_record
from durable_monty.store.vault import vault_of

# Columns by name, here and elsewhere: PostgreSQL refuses a statement that it has parsed before if a newer version has
# added a column to what `*` stands for, and a worker that runs would be of no more use.
_CLAIM = f"""
UPDATE executions SET worker = :worker, status = 'running' WHERE id IN (
    SELECT id FROM executions
    WHERE {{chosen}} AND (worker IS NULL OR worker = :worker) AND status IN ('scheduled', 'running', 'waiting')
        AND {MAY_CLAIM}
    ORDER BY wake_at LIMIT :limit {{FOR UPDATE SKIP LOCKED}}
) RETURNING {", ".join(EXECUTION_COLUMNS)}
"""
_CLAIM_DUE = Fixed(_CLAIM.replace("{chosen}", "wake_at <= :now"))
_CLAIM_THESE = Fixed(_CLAIM.replace("{chosen}", f"id IN {THESE}"))
# Written so that only the index that has them in their order fits.
_CLAIM_CALLS = Fixed(f"""
UPDATE calls SET status = 'submitting', worker = :worker, due_at = NULL WHERE (execution_id, call_id) IN (
    SELECT execution_id, call_id FROM calls
    WHERE status = 'pending' AND limit_key IS NULL AND executor = :executor AND due_at + 0.0 <= :now AND {MAY_CLAIM}
    ORDER BY {RANK} LIMIT :limit {{FOR UPDATE SKIP LOCKED}}
) RETURNING {", ".join(CALL_COLUMNS)}
""")
# The state as bytes, whatever somebody has put into that column of SQLite.
_SNAPSHOTS = Fixed(f"""
SELECT execution_id, version, monty_version, format, digest, {{snapshot|CAST(snapshot AS BLOB) AS snapshot}}
FROM snapshots WHERE execution_id IN {THESE}
""")
_UNDELIVERED = Fixed(f"""
SELECT {", ".join(CALL_COLUMNS)} FROM calls WHERE execution_id IN {THESE} AND batch IS NULL ORDER BY ended_at, call_id
""")


class Claiming:
    """Claims of one database.

    Args:
        workflow: Gives the workflow with a digest.
    """

    def __init__(self, connections: Connections, workflow: Callable[[Connection, str], WorkflowRecord]) -> None:
        self._connections = connections
        self._workflow = workflow

    def claim(self, worker: str, now: float, limit: int, ids: Collection[str] | None) -> list[Claimed]:
        """See `Store.claim`."""
        parameters = {"worker": worker, "limit": limit}
        with self._connections.write_at_once() as connection:
            if ids is None:
                found = _CLAIM_DUE.mappings(connection, {**parameters, "now": now})
            else:
                found = _CLAIM_THESE.mappings(connection, {**parameters, "ids": json.dumps(list(ids))})
            return self._load(connection, [execution_row(row, self._connections.vault) for row in found])

    def claim_calls(self, worker: str, executor: str, now: float, limit: int) -> list[DueCall]:
        """See `Store.claim_calls`."""
        parameters = {"worker": worker, "executor": executor, "now": now, "limit": limit}
        with self._connections.write_at_once() as connection:
            found = _CLAIM_CALLS.mappings(connection, parameters)
            return in_order(DueCall(row["execution_id"], call_row(row, self._connections.vault)) for row in found)

    def snapshot(self, execution_id: str) -> Snapshot | None:
        """The execution's snapshot, or None."""
        with self._connections.read_at_once() as connection:
            return _snapshots(connection, [execution_id]).get(execution_id)

    def _load(self, connection: Connection, rows: Sequence[ExecutionRow]) -> list[Claimed]:
        # Those that have not begun have neither.
        begun = [row.id for row in rows if row.version]
        found = _snapshots(connection, begun) if begun else {}
        live: dict[str, dict[int, CallRow]] = {row.id: {} for row in rows}
        for row in _UNDELIVERED.mappings(connection, {"ids": json.dumps(begun)}) if begun else ():
            live[row["execution_id"]][row["call_id"]] = call_row(row, self._connections.vault)
        return [Claimed(row, self._workflow(connection, row.workflow), found.get(row.id), live[row.id]) for row in rows]


def _snapshots(connection: Connection, ids: Sequence[str]) -> dict[str, Snapshot]:
    rows = _SNAPSHOTS.mappings(connection, {"ids": json.dumps(ids)})
    return {row["execution_id"]: snapshot_record(row, vault_of(connection)) for row in rows}

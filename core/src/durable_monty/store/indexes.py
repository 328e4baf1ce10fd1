"""The indexes of the tables, for migrations only: to declare one imports the dialect of every database it names."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, text

from durable_monty.store.schema import OPEN_STATUSES, calls, executions, metadata, schedules, signals, tags, workflows

__all__ = ["metadata"]


def _partial(name: str, *columns: Any, where: Any, unique: bool = False) -> None:
    """Declare an index of the rows for which a condition holds, on every database."""
    table = columns[0].table
    Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where, _table=table)


# Partial indexes hold only what is alive, so that finished executions and calls cost nothing to the queries of a worker.
_partial("executions_wake_at", executions.c.wake_at, where=executions.c.wake_at.isnot(None))
_partial("executions_worker", executions.c.worker, where=executions.c.worker.isnot(None))
_ALIVE = "status IN ('scheduled', 'running', 'waiting', 'paused')"
for _name, _column, _is_unique in (
    ("executions_parent", executions.c.parent, False),
    ("executions_singleton", executions.c.singleton_key, True),
    ("executions_debounce", executions.c.debounce_key, True),
):
    _partial(_name, _column, where=text(f"{_column.name} IS NOT NULL AND {_ALIVE}"), unique=_is_unique)
Index("executions_created_at", executions.c.created_at, executions.c.id)
Index("executions_status", executions.c.status, executions.c.created_at, executions.c.id)
Index("executions_workflow", executions.c.workflow, executions.c.created_at, executions.c.id)
_partial("executions_ended_at", executions.c.ended_at, where=executions.c.ended_at.isnot(None))
_partial("calls_live", calls.c.execution_id, where=calls.c.batch.is_(None))
_partial("calls_pending", calls.c.executor, calls.c.due_at, where=calls.c.status == "pending")
Index("tags_value", tags.c.name, tags.c.value, tags.c.created_at, tags.c.execution_id)
Index("workflows_name", workflows.c.name)
_RANK = text("(due_at - 60.0 * priority)")
_partial("calls_rank", calls.c.executor, _RANK, where=text("status = 'pending' AND limit_key IS NULL"))
Index("signals_of", signals.c.execution_id, signals.c.name, signals.c.id)
Index("schedules_next_at", schedules.c.next_at)
_partial(
    "calls_told",
    calls.c.execution_id,
    calls.c.kind,
    calls.c.function,
    calls.c.call_id,
    where=calls.c.kind.in_(("publish", "emit")),
)
_partial("calls_expiring", calls.c.expires_at, where=calls.c.expires_at.isnot(None))
_partial(
    "calls_limited",
    calls.c.limit_key,
    calls.c.status,
    _RANK,
    where=calls.c.limit_key.isnot(None) & calls.c.status.in_(OPEN_STATUSES),
)
_partial("calls_worker", calls.c.worker, where=calls.c.worker.isnot(None))

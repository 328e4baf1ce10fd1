"""The indexes of the tables, for migrations only: to declare one imports the dialect of every database it names."""

from __future__ import annotations

from sqlalchemy import Index, text

from durable_monty.store.schema import OPEN_STATUSES, calls, executions, metadata, schedules, signals, tags, workflows

__all__ = ["metadata"]

# Partial indexes hold only what is alive, so that finished executions and calls cost nothing to the queries of a worker.
Index(
    "executions_wake_at",
    executions.c.wake_at,
    sqlite_where=executions.c.wake_at.isnot(None),
    postgresql_where=executions.c.wake_at.isnot(None),
)
Index(
    "executions_worker",
    executions.c.worker,
    sqlite_where=executions.c.worker.isnot(None),
    postgresql_where=executions.c.worker.isnot(None),
)
_ALIVE = "status IN ('scheduled', 'running', 'waiting', 'paused')"
for _name, _columns, _unique in (
    ("executions_parent", (executions.c.parent,), False),
    ("executions_singleton", (executions.c.singleton_key,), True),
    ("executions_debounce", (executions.c.debounce_key,), True),
):
    _where = text(f"{_columns[0].name} IS NOT NULL AND {_ALIVE}")
    Index(_name, *_columns, unique=_unique, sqlite_where=_where, postgresql_where=_where)
Index("executions_created_at", executions.c.created_at, executions.c.id)
Index("executions_status", executions.c.status, executions.c.created_at, executions.c.id)
Index("executions_workflow", executions.c.workflow, executions.c.created_at, executions.c.id)
Index(
    "executions_ended_at",
    executions.c.ended_at,
    sqlite_where=executions.c.ended_at.isnot(None),
    postgresql_where=executions.c.ended_at.isnot(None),
)
Index(
    "calls_live", calls.c.execution_id, sqlite_where=calls.c.batch.is_(None), postgresql_where=calls.c.batch.is_(None)
)
Index(
    "calls_pending",
    calls.c.executor,
    calls.c.due_at,
    sqlite_where=calls.c.status == "pending",
    postgresql_where=calls.c.status == "pending",
)
Index("tags_value", tags.c.name, tags.c.value, tags.c.created_at, tags.c.execution_id)
Index("workflows_name", workflows.c.name)
_where = text("status = 'pending' AND limit_key IS NULL")
Index(
    "calls_rank",
    calls.c.executor,
    text("(due_at - 60.0 * priority)"),
    sqlite_where=_where,
    postgresql_where=_where,
    _table=calls,
)
Index("signals_of", signals.c.execution_id, signals.c.name, signals.c.id)
Index("schedules_next_at", schedules.c.next_at)
Index(
    "calls_told",
    calls.c.execution_id,
    calls.c.kind,
    calls.c.function,
    calls.c.call_id,
    sqlite_where=calls.c.kind.in_(("publish", "emit")),
    postgresql_where=calls.c.kind.in_(("publish", "emit")),
)
Index(
    "calls_expiring",
    calls.c.expires_at,
    sqlite_where=calls.c.expires_at.isnot(None),
    postgresql_where=calls.c.expires_at.isnot(None),
)
Index(
    "calls_limited",
    calls.c.limit_key,
    calls.c.status,
    text("(due_at - 60.0 * priority)"),
    sqlite_where=calls.c.limit_key.isnot(None) & calls.c.status.in_(OPEN_STATUSES),
    postgresql_where=calls.c.limit_key.isnot(None) & calls.c.status.in_(OPEN_STATUSES),
)
Index(
    "calls_worker", calls.c.worker, sqlite_where=calls.c.worker.isnot(None), postgresql_where=calls.c.worker.isnot(None)
)

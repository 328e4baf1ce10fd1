"""The tables.

Log and snapshot: `calls` is the log (what each execution asked for, what came back, in which order it was delivered),
`snapshots` a cache of it. What changes at every step is kept in narrow rows of its own, so that a step rewrites
little. Times are seconds since the epoch; texts named `inputs`, `arguments`, `output` and `outcome` are written by the
tagged codec.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

OPEN_STATUSES = ("pending", "submitting", "submitted")
"""Statuses of calls whose outcome is not fixed."""

metadata = MetaData()

workflows = Table(
    "workflows",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("lines", Text, nullable=False),
    Column("user_source", Text, nullable=False),
    Column("first_line", Integer, nullable=False),
    Column("functions", Text, nullable=False),
    Column("entry", Text, nullable=False),
    # When the check at submit passed; NULL: never checked.
    Column("checked_at", Float),
)

executions = Table(
    "executions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("status", Text, nullable=False),
    # Counts turns; every turn is guarded by it.
    Column("version", Integer, nullable=False),
    Column("next_batch", Integer, nullable=False),
    # The worker that holds the execution, or NULL.
    Column("worker", Text),
    # When a worker is to look at it; NULL: only when something arrives.
    Column("wake_at", Float),
    Column("inputs", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("output", Text),
    Column("error", Text),
    Column("note", Text),
    # Turns in a row that took the sandbox process down.
    Column("crashes", Integer, nullable=False, default=0),
    Column("cancel_deadline_at", Float),
    Column("cancel_reason", Text),
    # 1 once the cancellation has entered the workflow.
    Column("is_cancel_delivered", Integer, nullable=False, default=0),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("execution_id", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("monty_version", Text, nullable=False),
    Column("format", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("snapshot", LargeBinary, nullable=False),
)

calls = Table(
    "calls",
    metadata,
    Column("execution_id", Text, primary_key=True),
    Column("call_id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("line", Integer, nullable=False),
    Column("blocking", Integer, nullable=False),
    Column("executor", Text),
    Column("queue", Text),
    Column("priority", Integer, nullable=False),
    Column("timeout_seconds", Float),
    Column("resources", Text),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    # The worker that watches the job, or NULL.
    Column("worker", Text),
    Column("token", Text),
    Column("due_at", Float),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("outcome", Text),
    # The order of delivery: number of the resume, place within it. NULL: not delivered.
    Column("batch", Integer),
    Column("position", Integer),
)

attempts = Table(
    "attempts",
    metadata,
    # Attempts that failed and were followed by another, and outcomes that came too late; the last one is in `calls`.
    Column("execution_id", Text, primary_key=True),
    Column("call_id", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("ended_at", Float, nullable=False),
    Column("failure", Text, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Integer, nullable=False),
    Column("lease_until", Float, nullable=False),
)

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
Index("executions_created_at", executions.c.created_at, executions.c.id)
Index("executions_status", executions.c.status, executions.c.created_at)
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
Index(
    "calls_worker", calls.c.worker, sqlite_where=calls.c.worker.isnot(None), postgresql_where=calls.c.worker.isnot(None)
)

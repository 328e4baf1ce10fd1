"""The tables.

Log and snapshot: `calls` is the log (what each execution asked for, what came back, in which order it was delivered),
`snapshots` a cache of it. What changes at every step is kept in narrow rows of its own, so that a step rewrites
little. Times are seconds since the epoch; texts named `inputs`, `arguments`, `output` and `outcome` are written by the
tagged codec. The indexes are in `durable_monty.store.indexes`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Identity, Integer, LargeBinary, MetaData, Table, Text

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
    # What it takes, and the workflows that it may start as children, by the name that it uses.
    Column("parameters", Text, nullable=False, server_default="[]"),
    Column("children", Text, nullable=False, server_default="{}"),
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
    # A child: its parent, the parent's call that waits for it (NULL: nobody does), and whether it ends with the parent.
    Column("parent", Text),
    Column("parent_call", Integer),
    Column("parent_close", Text),
    # When it is cancelled whatever it does; NULL: never.
    Column("deadline_at", Float),
    # What its starter wanted to remember with it.
    Column("memo", Text),
    # At most one living execution has each.
    Column("singleton_key", Text),
    Column("debounce_key", Text),
    # The schedule that started it.
    Column("schedule", Text),
    # Of a failed one: what its last turn did, to be undone when it is retried.
    Column("last_turn", Text),
)

tags = Table(
    "tags",
    metadata,
    Column("execution_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    # When its execution was created, so that the index on values is in the order of lists.
    Column("created_at", Float, nullable=False),
)

signals = Table(
    "signals",
    metadata,
    # Signals that nobody has waited for yet; what a call has taken is its outcome, and its row is gone.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("execution_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("sent_at", Float, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    # The input that gets the time for which an execution is started; NULL: none does.
    Column("time_input", Text),
    Column("cron", Text),
    Column("timezone", Text, nullable=False),
    Column("interval_seconds", Float),
    Column("overlap", Text, nullable=False),
    Column("is_paused", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    # When it fires next; NULL: never again.
    Column("next_at", Float),
    Column("last_at", Float),
    Column("last_execution", Text),
    # Times at which it should have fired while the last execution was alive (overlap "queue"), as a JSON array.
    Column("queued", Text, nullable=False),
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
    # The races that it runs in, outermost first, as `/`-separated call ids; empty outside any.
    Column("scope", Text, nullable=False, server_default=""),
    # What shares a concurrency or rate limit with it; NULL: no limit.
    Column("limit_key", Text),
    # What this one call asks for beyond what its function says; JSON.
    Column("policy", Text),
    # When its attempt, or the call over all attempts, or its next sign of life is due; NULL: no such time.
    Column("expires_at", Float),
    # What its last heartbeat reported.
    Column("progress", Text),
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

limits = Table(
    "limits",
    metadata,
    # One row per concurrency or rate limit in use: what those who claim calls under it take turns on.
    Column("key", Text, primary_key=True),
    Column("tokens", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
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

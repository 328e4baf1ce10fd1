"""Children, signals, tags, deadlines, schedules, limits, scopes of races, expiry of attempts.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ALIVE = "status IN ('scheduled', 'running', 'waiting', 'paused')"
_OPEN = "status IN ('pending', 'submitting', 'submitted')"
_RANK = sa.text("(due_at - 60.0 * priority)")
_EXECUTION_COLUMNS = (
    ("parent", sa.Text),
    ("parent_call", sa.Integer),
    ("parent_close", sa.Text),
    ("deadline_at", sa.Float),
    ("memo", sa.Text),
    ("singleton_key", sa.Text),
    ("debounce_key", sa.Text),
    ("schedule", sa.Text),
    ("last_turn", sa.Text),
)
_CALL_COLUMNS = (("limit_key", sa.Text), ("policy", sa.Text), ("expires_at", sa.Float), ("progress", sa.Text))
_INDEXES: tuple[tuple[str, str, list[Any], str, bool], ...] = (
    ("executions_parent", "executions", ["parent"], f"parent IS NOT NULL AND {_ALIVE}", False),
    ("executions_singleton", "executions", ["singleton_key"], f"singleton_key IS NOT NULL AND {_ALIVE}", True),
    ("executions_debounce", "executions", ["debounce_key"], f"debounce_key IS NOT NULL AND {_ALIVE}", True),
    ("executions_ended_at", "executions", ["ended_at"], "ended_at IS NOT NULL", False),
    ("calls_told", "calls", ["execution_id", "kind", "function", "call_id"], "kind IN ('publish', 'emit')", False),
    ("calls_expiring", "calls", ["expires_at"], "expires_at IS NOT NULL", False),
    ("calls_limited", "calls", ["limit_key", "status", _RANK], f"limit_key IS NOT NULL AND {_OPEN}", False),
    ("calls_rank", "calls", ["executor", _RANK], "status = 'pending' AND limit_key IS NULL", False),
)


# Notifies whoever waits for the end of an execution, whatever brings it about.
_ENDED = (
    """
    CREATE FUNCTION durable_monty_ended() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('durable_monty_ended', ''); RETURN NULL; END $$
    """,
    """
    CREATE TRIGGER executions_ended AFTER UPDATE OF status ON executions FOR EACH ROW
    WHEN (NEW.status IN ('completed', 'failed', 'cancelled', 'paused') AND NEW.status <> OLD.status)
    EXECUTE FUNCTION durable_monty_ended()
    """,
)


def upgrade() -> None:
    """Add columns, tables and indexes."""
    op.add_column("workflows", sa.Column("parameters", sa.Text, nullable=False, server_default="[]"))
    op.add_column("workflows", sa.Column("children", sa.Text, nullable=False, server_default="{}"))
    for name, kind in _EXECUTION_COLUMNS:
        op.add_column("executions", sa.Column(name, kind))
    op.add_column("calls", sa.Column("scope", sa.Text, nullable=False, server_default=""))
    for name, kind in _CALL_COLUMNS:
        op.add_column("calls", sa.Column(name, kind))
    op.create_table(
        "tags",
        sa.Column("execution_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "signals",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
        sa.Column("execution_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("sent_at", sa.Float, nullable=False),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("time_input", sa.Text),
        sa.Column("cron", sa.Text),
        sa.Column("timezone", sa.Text, nullable=False),
        sa.Column("interval_seconds", sa.Float),
        sa.Column("overlap", sa.Text, nullable=False),
        sa.Column("is_paused", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("next_at", sa.Float),
        sa.Column("last_at", sa.Float),
        sa.Column("last_execution", sa.Text),
        sa.Column("queued", sa.Text, nullable=False),
    )
    op.create_table(
        "limits",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("tokens", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    for name, table, columns, condition, is_unique in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, table, columns, unique=is_unique, sqlite_where=where, postgresql_where=where)
    op.drop_index("executions_status", "executions")
    op.create_index("executions_status", "executions", ["status", "created_at", "id"])
    op.create_index("executions_workflow", "executions", ["workflow", "created_at", "id"])
    op.create_index("workflows_name", "workflows", ["name"])
    op.create_index("tags_value", "tags", ["name", "value", "created_at", "execution_id"])
    op.create_index("signals_of", "signals", ["execution_id", "name", "id"])
    op.create_index("schedules_next_at", "schedules", ["next_at"])
    if op.get_bind().dialect.name == "postgresql":
        for statement in _ENDED:
            op.execute(statement)


def downgrade() -> None:
    """Back to 0001; what the new tables and columns hold is lost."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER executions_ended ON executions")
        op.execute("DROP FUNCTION durable_monty_ended()")
    for name, table, *_ in _INDEXES:
        op.drop_index(name, table)
    op.drop_index("workflows_name", "workflows")
    op.drop_index("executions_workflow", "executions")
    op.drop_index("executions_status", "executions")
    op.create_index("executions_status", "executions", ["status", "created_at"])
    for table in ("limits", "schedules", "signals", "tags"):
        op.drop_table(table)
    for name in ("scope", *(name for name, _ in _CALL_COLUMNS)):
        op.drop_column("calls", name)
    for name, _ in _EXECUTION_COLUMNS:
        op.drop_column("executions", name)
    for name in ("parameters", "children"):
        op.drop_column("workflows", name)

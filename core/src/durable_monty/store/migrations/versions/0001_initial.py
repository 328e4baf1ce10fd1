"""Workflows, executions, snapshots, calls, attempts, workers.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _live_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "workflows",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("lines", sa.Text, nullable=False),
        sa.Column("user_source", sa.Text, nullable=False),
        sa.Column("first_line", sa.Integer, nullable=False),
        sa.Column("functions", sa.Text, nullable=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("checked_at", sa.Float),
    )
    op.create_table(
        "executions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("next_batch", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("wake_at", sa.Float),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("output", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("cancel_deadline_at", sa.Float),
        sa.Column("cancel_reason", sa.Text),
        sa.Column("is_cancel_delivered", sa.Integer, nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("execution_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("monty_version", sa.Text, nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("snapshot", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "calls",
        sa.Column("execution_id", sa.Text, primary_key=True),
        sa.Column("call_id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("function", sa.Text, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("blocking", sa.Integer, nullable=False),
        sa.Column("executor", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("timeout_seconds", sa.Float),
        sa.Column("resources", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lost", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("token", sa.Text),
        sa.Column("due_at", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("outcome", sa.Text),
        sa.Column("batch", sa.Integer),
        sa.Column("position", sa.Integer),
    )
    op.create_table(
        "attempts",
        sa.Column("execution_id", sa.Text, primary_key=True),
        sa.Column("call_id", sa.Integer, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("ended_at", sa.Float, nullable=False),
        sa.Column("failure", sa.Text, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process_started", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Float, nullable=False),
    )
    _live_index("executions_wake_at", "executions", ["wake_at"], "wake_at IS NOT NULL")
    _live_index("executions_worker", "executions", ["worker"], "worker IS NOT NULL")
    op.create_index("executions_created_at", "executions", ["created_at", "id"])
    op.create_index("executions_status", "executions", ["status", "created_at"])
    _live_index("calls_live", "calls", ["execution_id"], "batch IS NULL")
    _live_index("calls_pending", "calls", ["executor", "due_at"], "status = 'pending'")
    _live_index("calls_worker", "calls", ["worker"], "worker IS NOT NULL")
    if op.get_bind().dialect.name == "postgresql":
        # Rewritten at every step: leave room on the page for the next version, and do not compress what is compressed.
        op.execute("ALTER TABLE snapshots SET (fillfactor = 50)")
        op.execute("ALTER TABLE snapshots ALTER COLUMN snapshot SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE executions SET (fillfactor = 70)")


def downgrade() -> None:
    """Drop the tables with everything in them."""
    for table in ("workers", "attempts", "calls", "snapshots", "executions", "workflows"):
        op.drop_table(table)

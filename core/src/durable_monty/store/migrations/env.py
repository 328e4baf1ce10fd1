"""Alembic's environment: runs the migrations on the connection that `durable_monty.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from durable_monty.store.indexes import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter a table in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

"""Alembic's migrations of the schema; run through `durable_monty.store.migrate`."""

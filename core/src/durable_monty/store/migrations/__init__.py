"""Alembic's migrations of the schema; run through `durable_monty.store.migrate`.

Workers of the version before go on while a migration runs and after it, until they are restarted. So a migration adds:
tables, indexes, and columns that are nullable or have a default; to `calls` only nullable ones, because the statement of
`commit_postgresql` that records calls writes every column. What is dropped or renamed is dropped a release later.
"""

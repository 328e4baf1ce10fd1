"""What several parts of the store say in the two dialects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from durable_monty.store.commit_postgresql import CHANNEL


def tell(connection: Connection) -> None:
    """Let workers know, once this is committed, that there is something to look at."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_notify(%s, '')", (CHANNEL,))


def insert_or_ignore(connection: Connection, table: Any) -> Any:
    """An insert that does nothing where a unique index is in the way."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as upsert

        return upsert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as sqlite_upsert

    return sqlite_upsert(table).on_conflict_do_nothing()

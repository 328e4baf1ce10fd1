"""Bringing a database to the schema of this code, and telling which it has.

The version is looked at first; Alembic is imported only when something is to be done.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, column, inspect, select, table, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from durable_monty.errors import SchemaMismatch
from durable_monty.store.engines import shown

HEAD = "0002"
"""The newest revision that this code knows."""

_VERSION_TABLE = "alembic_version"
_DEADLOCK = "40P01"
_MOST_ATTEMPTS = 5


def current(engine: Engine) -> str | None:
    """The database's revision, or None for a database that has no schema of ours yet."""
    with engine.connect() as connection:
        if not inspect(connection).has_table(_VERSION_TABLE):
            return None
        revision = connection.scalar(select(column("version_num")).select_from(table(_VERSION_TABLE)))
        return None if revision is None else str(revision)


def upgrade(engine: Engine) -> None:
    """Bring the database to `HEAD`; safe when several processes do it at once.

    Raises:
        SchemaMismatch: The database is newer than this code, or holds tables of something else.
    """
    revision = current(engine)
    if revision == HEAD:
        return
    if revision is not None and revision > HEAD:
        raise SchemaMismatch(
            f"opening the database {_shown(engine)}: its schema is revision {revision}, newer than {HEAD}, the newest "
            "that this version of durable-monty knows; upgrade durable-monty here"
        )
    if revision is None:
        _refuse_foreign_tables(engine)
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        try:
            _run(engine)
        except (OperationalError, ProgrammingError, IntegrityError) as error:
            # Another process may have created the same tables a moment earlier.
            if current(engine) == HEAD:
                return
            # Workers that run lock the same tables in another order, and PostgreSQL ends one of the two.
            if attempt == _MOST_ATTEMPTS or getattr(error.orig, "sqlstate", None) != _DEADLOCK:
                raise
        else:
            return


def _run(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # One process migrates, the others wait here and then find nothing to do.
            connection.execute(text("SELECT pg_advisory_xact_lock(7262151420)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _refuse_foreign_tables(engine: Engine) -> None:
    found = set(inspect(engine).get_table_names()) & {"executions", "calls", "snapshots", "workflows"}
    if found:
        raise SchemaMismatch(
            f"opening the database {_shown(engine)}: it has tables {', '.join(map(repr, sorted(found)))} of something "
            "else and no schema version of ours; name another database in [store] url"
        )


def _shown(engine: Engine) -> str:
    return repr(shown(engine.url))

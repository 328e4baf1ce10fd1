"""What one step asks of PostgreSQL, counted by the server: these figures are the same on any machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import psycopg
from plan import ABSURD, DBOS, FLOOR, OURS, Case
from running import run_program

from support import servers

_SHORT, _LONG = 100, 1100
_FLUSH_SECONDS = 1.5


def counts(peers_python: str, *, is_quick: bool) -> str:
    """A table: the difference of two chains, by the number of steps between them."""
    short, long = (20, 120) if is_quick else (_SHORT, _LONG)
    rows = []
    with servers.postgresql(is_durable=True, options=["shared_preload_libraries=pg_stat_statements"]) as server_url:
        with psycopg.connect(server_url) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        for who in (OURS, FLOOR, ABSURD, DBOS):
            few, many = (_counted(server_url, who, n, peers_python) for n in (short, long))
            if few is None or many is None:
                rows.append(f"| {who} | failed | | | |")
                continue
            each = [(b - a) / (long - short) for a, b in zip(few, many, strict=True)]
            rows.append(f"| {who} | " + " | ".join(f"{value:,.2f}" for value in each) + " |")
    head = "| who | statements | transactions | syncs of the log | bytes of the log |\n|---|---:|---:|---:|---:|"
    return "### What a step of a chain asks of PostgreSQL\n\n" + "\n".join([head, *rows])


def _counted(server_url: str, who: str, n: int, peers_python: str) -> list[float] | None:
    case = Case("W1", who, "postgresql", n)
    url = servers.new_database(server_url, f"counts_{who.partition(',')[0].replace('-', '_').lower()}_{n}")
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(server_url, autocommit=True) as connection:
        before = _read(connection, url)
        run = run_program(case, url, Path(folder), peers_python)
        after = _read(connection, url)
    return None if "failed" in run else [b - a for a, b in zip(before, after, strict=True)]


def _read(connection: Any, url: str) -> list[float]:
    """Statements, transactions, syncs and bytes so far."""
    # What sessions have counted reaches the views with a delay.
    connection.execute("SELECT pg_sleep(%s)", (_FLUSH_SECONDS,))
    connection.execute("CHECKPOINT")
    name = url.rpartition("/")[2]
    statements = connection.execute(
        "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
        "WHERE datname = %s AND query !~* '^(begin|commit|rollback)'",
        (name,),
    ).fetchone()[0]
    transactions = connection.execute(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = %s", (name,)
    ).fetchone()[0]
    syncs = connection.execute("SELECT coalesce(sum(fsyncs), 0) FROM pg_stat_io WHERE object = 'wal'").fetchone()[0]
    written = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()[0]
    return [float(value) for value in (statements, transactions, syncs, written)]

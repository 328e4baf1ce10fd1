"""How PostgreSQL answers what a worker asks again and again, beside millions of executions that have ended."""

from __future__ import annotations

from typing import Any

import hosts
import psycopg
from databases import Database

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from durable_monty.store import claiming, survey

_ALIVE = 1_000
_QUERIES = {
    "what is due (`store/survey.py`)": survey._SURVEY,
    "claiming what is due (`store/claiming.py`)": claiming._CLAIM_DUE,
    "the calls of what was claimed": claiming._UNDELIVERED,
    "its snapshots": claiming._SNAPSHOTS,
}
_PARAMETERS = {"now": 2e9, "worker": "nobody", "limit": 100, "ids": '["one"]'}
_CALLS_EACH = 1


def claims(database: Database, count: int) -> str:
    """A table: each query, how its tables are read, and what it took, with `count` executions that have ended."""
    url = database.new_url()
    with OrchestratorService(init_db(url), Config()) as service:
        service.start_execution("await add(1)", [hosts.add], execution_id="one")
        Worker(service).run(until_complete=True)
        for _ in range(_ALIVE):
            service.start_execution("await add(1)", [hosts.add], delay_seconds=1e6)
    rows = []
    with psycopg.connect(url, autocommit=True) as connection:
        _copy(connection, "executions", "id", count)
        _copy(connection, "calls", "execution_id", count * _CALLS_EACH)
        connection.execute("VACUUM ANALYZE")
        for what, query in _QUERIES.items():
            # What it does is undone: every run finds the same.
            with connection.transaction(force_rollback=True):
                plan = connection.execute(
                    f"EXPLAIN (ANALYZE, FORMAT JSON) {query._postgresql}", _PARAMETERS
                ).fetchone()[0]
            scans = sorted(set(_scans(plan[0]["Plan"])))
            rows.append(f"| {what} | {'; '.join(scans)} | {plan[0]['Execution Time']:.2f} ms |")
        size = connection.execute("SELECT pg_size_pretty(pg_database_size(current_database()))").fetchone()[0]
    head = "| query | how it reads | time |\n|---|---|---:|"
    title = f"### A worker's queries beside {count:,} executions that have ended ({size})"
    return "\n".join([title, "", head, *rows])


def _copy(connection: Any, table: str, key: str, count: int) -> None:
    """As many copies of the row that has ended, each with a key of its own."""
    columns = [row[0] for row in connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position", (table,)
    )]  # fmt: skip
    values = ", ".join("'copy-' || n" if name == key else f"t.{name}" for name in columns)
    connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} t, generate_series(1, {count}) n "
        f"WHERE t.{key} = 'one'"
    )


def _scans(plan: dict[str, Any]) -> list[str]:
    found = []
    if "Relation Name" in plan and "Scan" in plan["Node Type"]:
        index = plan.get("Index Name")
        found.append(f"{plan['Relation Name']}: {plan['Node Type']}" + (f" `{index}`" if index else ""))
    if plan["Node Type"] == "Bitmap Index Scan":
        found.append(f"`{plan['Index Name']}`")
    return found + [scan for part in plan.get("Plans", ()) for scan in _scans(part)]

"""Statements that SQLite is given, counted where `BENCH_COUNT` asks for it; PostgreSQL counts by itself.

Importing this module is enough, before a database is opened. Counting takes time, so runs that count are not timed.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any

_counts = {"statements": 0, "transactions": 0}
_connect = sqlite3.connect


def begin() -> None:
    """Forget what was counted before."""
    _counts.update(dict.fromkeys(_counts, 0))


def counts() -> dict[str, int]:
    """Statements, and those of them that ended a transaction."""
    return dict(_counts) if "BENCH_COUNT" in os.environ else {}


def _counting(*arguments: Any, **options: Any) -> sqlite3.Connection:
    connection = _connect(*arguments, **options)
    connection.set_trace_callback(_count)
    return connection


def _count(statement: str) -> None:
    _counts["statements"] += 1
    _counts["transactions"] += statement.strip().upper().startswith("COMMIT")


if "BENCH_COUNT" in os.environ:
    sqlite3.connect = sqlite3.dbapi2.connect = _counting  # type: ignore[assignment]

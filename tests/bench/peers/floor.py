"""The floor: pydantic-monty and the least persistence that is durable, one commit a step. No retries, leases or checks."""

from __future__ import annotations

import contest  # first: it may pin the process

# isort: split
import json
import sqlite3
import sys
import time
from typing import Any

from pydantic_monty import FunctionSnapshot, Monty, MontyComplete, NameLookupSnapshot

CHAIN = "total = 0\nfor i in range(n):\n    total += await add(i)\ntotal"
FAN_OUT = "import asyncio\nr = await asyncio.gather(*[add(i) for i in range(n)])\nsum(r)"
_LIMITS: Any = {"max_suspensions": 10**7}
_BATCH = 100


class Rows:
    """One row for each execution and one for each call."""

    def __init__(self, url: str, synchronous: str) -> None:
        self._is_postgresql = url.startswith("postgresql")
        self._connection: Any
        if self._is_postgresql:
            import psycopg

            self._connection = psycopg.connect(url, autocommit=True, prepare_threshold=0)
        else:
            self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(f"PRAGMA synchronous={synchronous}")
        blob = "bytea" if self._is_postgresql else "blob"
        self._connection.execute(f"CREATE TABLE execution (id TEXT PRIMARY KEY, state {blob})")
        self._connection.execute("CREATE TABLE step (id TEXT, number INT, result TEXT, PRIMARY KEY (id, number))")

    def start(self, name: str, state: bytes) -> None:
        self._connection.execute(self._sql("INSERT INTO execution VALUES (?, ?)"), (name, state))

    def step(self, name: str, number: int, result: Any, state: bytes) -> None:
        """A call's result and the snapshot after it, in one commit."""
        row, update = (name, number, json.dumps(result)), (state, name)
        if self._is_postgresql:
            statement = "WITH i AS (INSERT INTO step VALUES (%s, %s, %s)) UPDATE execution SET state = %s WHERE id = %s"
            self._connection.execute(statement, row + update)
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO step VALUES (?, ?, ?)", row)
        self._connection.execute("UPDATE execution SET state = ? WHERE id = ?", update)
        self._connection.execute("COMMIT")

    def steps(self, rows: list[tuple[str, int, str]]) -> None:
        """Results of many calls in one commit."""
        self._connection.execute("BEGIN")
        self._connection.cursor().executemany(self._sql("INSERT INTO step VALUES (?, ?, ?)"), rows)
        self._connection.execute("COMMIT")

    def _sql(self, text: str) -> str:
        return text.replace("?", "%s") if self._is_postgresql else text


def main() -> None:
    chosen = contest.arguments()
    rows = Rows(chosen.url, chosen.synchronous)
    with Monty(min_processes=1, max_processes=1) as pool:
        _chain(pool, rows, "warm", 1)
        began_at = time.perf_counter()
        values: dict[str, Any] = {}
        if chosen.workload == "W1":
            contest.check(_chain(pool, rows, "one", chosen.n), sum(range(chosen.n)))
        elif chosen.workload == "W2":
            contest.check(_fan_out(pool, rows, chosen.n), sum(range(chosen.n)))
        elif chosen.workload == "W3":
            for number in range(chosen.n):
                contest.check(_chain(pool, rows, f"many-{number}", 3), 3)
        elif chosen.workload == "W6":
            times = []
            for number in range(chosen.n):
                start = time.perf_counter()
                _chain(pool, rows, f"single-{number}", 1)
                times.append(time.perf_counter() - start)
            values = contest.quantiles(times)
        else:
            raise SystemExit(f"the floor has no {chosen.workload}")
        contest.report(seconds=time.perf_counter() - began_at, **values)


def _chain(pool: Any, rows: Rows, name: str, count: int) -> Any:
    with pool.checkout(limits=_LIMITS) as session:
        calls: list[tuple[int, Any]] = []
        snapshot = _run(session.feed_start(CHAIN, inputs={"n": count}), calls)
        rows.start(name, snapshot.dump())
        number = 0
        while not isinstance(snapshot, MontyComplete):
            ((call_id, arguments),) = calls
            calls.clear()
            result = arguments[0]
            snapshot = _run(snapshot.resume({call_id: {"return_value": result}}), calls)
            rows.step(name, number, result, b"" if isinstance(snapshot, MontyComplete) else snapshot.dump())
            number += 1
        return snapshot.output


def _fan_out(pool: Any, rows: Rows, count: int) -> Any:
    with pool.checkout(limits=_LIMITS) as session:
        calls: list[tuple[int, Any]] = []
        snapshot = _run(session.feed_start(FAN_OUT, inputs={"n": count}), calls)
        rows.start("all", snapshot.dump())
        for start in range(0, count, _BATCH):
            rows.steps([("all", call_id, json.dumps(given[0])) for call_id, given in calls[start : start + _BATCH]])
        snapshot = snapshot.resume({call_id: {"return_value": given[0]} for call_id, given in calls})
        rows.step("all", -1, None, b"")
        return snapshot.output


def _run(snapshot: Any, calls: list[tuple[int, Any]]) -> Any:
    """Until it waits; every call becomes a future."""
    while True:
        if isinstance(snapshot, NameLookupSnapshot):
            snapshot = snapshot.resume(value=add)
        elif isinstance(snapshot, FunctionSnapshot):
            calls.append((snapshot.call_id, snapshot.args))
            snapshot = snapshot.resume({"future": ...})
        else:
            return snapshot


def add(value: int) -> int:
    """What the workflow calls; never run, its result is its argument."""
    return value


if __name__ == "__main__":
    sys.exit(main())

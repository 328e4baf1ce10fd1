"""What lives in a database and how it stands, for whoever looks for executions that do not go on.

Only what lives is read, a page at a time along an index; calls are summed up in the database, so that an execution with
a hundred thousand calls at one line is one row. Nothing is locked and nothing is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from durable_monty.codec import Unreadable
from durable_monty.errors import PayloadUnreadable
from durable_monty.store.attempts import read_failure
from durable_monty.store.connections import Connections
from durable_monty.store.fixed import THESE, Fixed
from durable_monty.store.vault import failure_of

PAGE = 500
"""Executions read at a time."""

_STATUSES = ("paused", "scheduled", "running", "waiting")
_PAGE = Fixed("""
SELECT e.id, e.status, e.worker, e.wake_at, e.created_at, e.note, e.crashes, e.parent, e.parent_call, s.monty_version, s.format
FROM executions e LEFT JOIN snapshots s ON s.execution_id = e.id
WHERE e.status = :status AND (e.created_at, e.id) > (:created_at, :id)
ORDER BY e.created_at, e.id LIMIT :limit
""")
_CALLS = Fixed(f"""
SELECT execution_id, kind, function, line, status, executor, limit_key, worker, count(*) AS number,
    min(call_id) AS call_id, min(created_at) AS created_at, min(due_at) AS due_at, min(expires_at) AS expires_at,
    max(attempt) AS attempt, max(lost) AS lost, min(ended_at) AS ended_at
FROM calls WHERE execution_id IN {THESE} AND batch IS NULL
GROUP BY execution_id, kind, function, line, status, executor, limit_key, worker
ORDER BY execution_id, min(call_id)
""")
_WORKERS = Fixed("SELECT id, host, pid, lease_until FROM workers WHERE lease_until >= 0")
# Of the first of alike calls only: a hundred thousand that failed are one row here too.
_FAILURES = Fixed(f"""
SELECT c.execution_id, c.call_id, c.function, c.line, c.status, a.attempt, a.ended_at, a.failure
FROM calls c JOIN attempts a
    ON a.execution_id = c.execution_id AND a.call_id = c.call_id AND a.attempt = c.attempt - 1
WHERE (c.execution_id, c.call_id) IN (
    SELECT execution_id, min(call_id) FROM calls
    WHERE execution_id IN {THESE} AND batch IS NULL AND status IN ('pending', 'submitting', 'submitted')
        AND attempt > 1
    GROUP BY execution_id, function, line, status
)
""")
_IN_WORK = Fixed("""
SELECT executor, count(*) AS number FROM calls
WHERE worker IS NOT NULL AND status IN ('submitting', 'submitted') GROUP BY executor
""")
# With the very words of the condition of `calls_limited`: otherwise SQLite reads every call there is.
_HOLDERS = Fixed("""
SELECT execution_id, call_id, created_at FROM calls
WHERE limit_key = :key AND limit_key IS NOT NULL AND status IN ('pending', 'submitting', 'submitted')
    AND status IN ('submitting', 'submitted')
ORDER BY created_at LIMIT 3
""")
_LIMIT_POLICY = Fixed("""
SELECT policy FROM calls
WHERE limit_key = :key AND limit_key IS NOT NULL AND status IN ('pending', 'submitting', 'submitted') LIMIT 1
""")
_SIGNALS = Fixed(f"SELECT DISTINCT execution_id, name FROM signals WHERE execution_id IN {THESE} ORDER BY name")
_PARENTS = Fixed(f"""
SELECT p.id, c.line, c.call_id, c.created_at AS since, e.id AS child
FROM executions e
JOIN executions p ON p.id = e.parent AND p.status IN ('scheduled', 'running', 'waiting')
JOIN calls c ON c.execution_id = e.parent AND c.call_id = e.parent_call AND c.batch IS NULL
WHERE e.id IN {THESE} AND e.parent_call IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class LivingCall:
    """Calls of one execution that are alike: open, or ended and not delivered. Times are the earliest of them.

    Attributes:
        number: How many they are.
        call_id: The first of them.
        attempt: The highest.
        worker: The worker that watches them, or None.
    """

    kind: str
    function: str
    line: int
    status: str
    executor: str | None
    limit_key: str | None
    worker: str | None
    number: int
    call_id: int
    created_at: float
    due_at: float | None
    expires_at: float | None
    attempt: int
    lost: int
    ended_at: float | None

    @property
    def is_open(self) -> bool:
        """Whether it has no outcome yet."""
        return self.status in ("pending", "submitting", "submitted")

    @property
    def is_in_work(self) -> bool:
        """Whether it is at an executor, or on its way there."""
        return self.kind == "function" and self.status in ("submitting", "submitted")


@dataclass(frozen=True, slots=True)
class Living:
    """An execution that has not ended.

    Attributes:
        wake_at: When a worker is to look at it; None: only when something arrives.
        parent: The execution that waits for its end, or None.
        monty_version: The Monty that wrote its snapshot; None: it has none.
        format: The dump format of its snapshot; None: it has none.
    """

    id: str
    status: str
    worker: str | None
    wake_at: float | None
    created_at: float
    note: str | None
    crashes: int
    parent: str | None
    monty_version: str | None
    format: int | None
    calls: tuple[LivingCall, ...]


@dataclass(frozen=True, slots=True)
class KnownWorker:
    """A worker that has not been taken over."""

    id: str
    host: str
    pid: int
    lease_until: float


@dataclass(frozen=True, slots=True)
class Waiter:
    """An execution that waits for a child, and the call by which it does."""

    id: str
    line: int
    call_id: int
    since: float
    child: str


@dataclass(frozen=True, slots=True)
class LastFailure:
    """How the attempt before the one that is pending or in work ended."""

    type: str
    message: str
    kind: str
    ended_at: float


class Examining:
    """Reads what lives in one database."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def living(self) -> Iterator[list[Living]]:
        """Every execution that has not ended, in pages, each status from the oldest on."""
        for status in _STATUSES:
            after = {"created_at": -1.0, "id": ""}
            while page := self._page(status, after):
                yield page
                after = {"created_at": page[-1].created_at, "id": page[-1].id}

    def workers(self) -> list[KnownWorker]:
        """Every worker that has not been taken over, alive or not."""
        with self._connections.read_at_once() as connection:
            return [KnownWorker(**row) for row in _WORKERS.mappings(connection, {})]

    def in_work(self) -> dict[str, int]:
        """How many calls are at each executor."""
        with self._connections.read_at_once() as connection:
            return {row["executor"] or "": row["number"] for row in _IN_WORK.mappings(connection, {})}

    def holders(self, limit_key: str) -> list[str]:
        """Up to three calls that occupy a limit, the oldest first, as `execution:call`."""
        with self._connections.read_at_once() as connection:
            rows = _HOLDERS.mappings(connection, {"key": limit_key})
        return [f"{row['execution_id']}:{row['call_id']}" for row in rows]

    def limit_policy(self, limit_key: str) -> dict[str, object]:
        """What the calls under a limit ask for."""
        with self._connections.read_at_once() as connection:
            rows = _LIMIT_POLICY.mappings(connection, {"key": limit_key})
        return dict(json.loads(rows[0]["policy"])) if rows and rows[0]["policy"] else {}

    def last_failures(self, ids: Sequence[str]) -> dict[tuple[str, str, int, str], LastFailure]:
        """Of open calls that are tried again: how they failed last, by execution, function, line and status."""
        with self._connections.read_at_once() as connection:
            rows = _FAILURES.mappings(connection, {"ids": json.dumps(list(ids))})
        found = {}
        for row in rows:
            key = row["execution_id"], row["function"], row["line"], row["status"]
            place = failure_of(row["attempt"]), row["execution_id"], row["call_id"]
            text = self._connections.vault.show(row["failure"], *place)
            if isinstance(text, Unreadable):
                # The others are still to be told.
                found[key] = LastFailure(PayloadUnreadable.__name__, text.reason, "unreadable", row["ended_at"])
                continue
            failure = read_failure(text)
            found[key] = LastFailure(failure.type, failure.message, failure.kind, row["ended_at"])
        return found

    def unread_signals(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """The names of signals that are there and that nobody has waited for, by execution."""
        found: dict[str, list[str]] = {}
        with self._connections.read_at_once() as connection:
            for row in _SIGNALS.mappings(connection, {"ids": json.dumps(list(ids))}):
                found.setdefault(row["execution_id"], []).append(row["name"])
        return found

    def waiters(self, children: Sequence[str]) -> list[Waiter]:
        """The executions that wait for these children."""
        with self._connections.read_at_once() as connection:
            rows = _PARENTS.mappings(connection, {"ids": json.dumps(list(children))})
        return [Waiter(row["id"], row["line"], row["call_id"], row["since"], row["child"]) for row in rows]

    def _page(self, status: str, after: dict[str, object]) -> list[Living]:
        with self._connections.read_at_once() as connection:
            rows = _PAGE.mappings(connection, {"status": status, "limit": PAGE, **after})
        calls: dict[str, list[LivingCall]] = {row["id"]: [] for row in rows}
        if not calls:
            return []
        with self._connections.read_at_once() as connection:
            for row in _CALLS.mappings(connection, {"ids": json.dumps(list(calls))}):
                calls[row.pop("execution_id")].append(LivingCall(**row))
        return [_living(row, calls[row["id"]]) for row in rows]


def _living(row: dict[str, object], calls: Sequence[LivingCall]) -> Living:
    values = {**row, "parent": row["parent"] if row["parent_call"] is not None else None}
    values.pop("parent_call")
    return Living(**values, calls=tuple(calls))  # type: ignore[arg-type]

"""Claiming calls that share a concurrency or rate limit: one worker at a time per key, over all workers.

Every claim takes the rows of its keys in the table `limits` in the order of the keys: on PostgreSQL with a row lock, on
SQLite within a write transaction. What is counted under the lock includes all that was claimed before; calls that end
meanwhile only make room. Statements are plain SQL: SQLite uses a partial index only where its condition is spelt out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, text

from durable_monty.limits import SECONDS_PER_PRIORITY, Limit
from durable_monty.records import DueCall
from durable_monty.store.connections import Connections
from durable_monty.store.fixed import MAY_CLAIM, Fixed
from durable_monty.store.rows import CALL_COLUMNS, call_row

RANK = f"due_at - {SECONDS_PER_PRIORITY} * priority"
"""What calls that wait are ordered by: a call of priority 1 is ahead of those that were due up to a minute earlier."""

KEYS_AT_A_TIME = 200
_KEEP_SECONDS = 8 * 86400.0
_SWEEP_SECONDS = 3600.0

_LIMITED = "limit_key IS NOT NULL AND status IN ('pending', 'submitting', 'submitted')"
# Goes from key to key in the index, however many calls have the same one.
_KEYS = text(f"""
WITH RECURSIVE found(key) AS (
    SELECT (SELECT limit_key FROM calls WHERE {_LIMITED} AND status = 'pending' AND limit_key > :after
        ORDER BY limit_key LIMIT 1)
    UNION ALL
    SELECT (SELECT limit_key FROM calls WHERE {_LIMITED} AND status = 'pending' AND limit_key > found.key
        ORDER BY limit_key LIMIT 1)
    FROM found WHERE found.key IS NOT NULL
), chosen AS (
    SELECT key FROM found WHERE key IS NOT NULL LIMIT {KEYS_AT_A_TIME}
)
SELECT key, (SELECT policy FROM calls WHERE {_LIMITED} AND status = 'pending' AND limit_key = chosen.key LIMIT 1) AS policy
FROM chosen ORDER BY key
""")
_ADD = text("INSERT INTO limits (key, tokens, updated_at) VALUES (:key, 1.0, :now) ON CONFLICT (key) DO NOTHING")
_LOCK = "SELECT key, tokens, updated_at FROM limits WHERE key IN :keys ORDER BY key"
_COUNT = text(f"""
SELECT limit_key, count(*) FROM calls WHERE {_LIMITED} AND status = 'submitting' AND limit_key IN :keys GROUP BY limit_key
UNION ALL
SELECT limit_key, count(*) FROM calls WHERE {_LIMITED} AND status = 'submitted' AND limit_key IN :keys GROUP BY limit_key
""").bindparams(bindparam("keys", expanding=True))
# Written so that only the index that has them in their order fits.
_CLAIM = Fixed(f"""
UPDATE calls SET status = 'submitting', worker = :worker, due_at = NULL
WHERE (execution_id, call_id) IN (
    SELECT execution_id, call_id FROM calls
    WHERE {_LIMITED} AND status = 'pending' AND limit_key = :key
        AND executor || '' = :executor AND due_at + 0.0 <= :now AND {MAY_CLAIM}
    ORDER BY {RANK} LIMIT :room {{FOR UPDATE SKIP LOCKED}}
) RETURNING {", ".join(CALL_COLUMNS)}
""")
_SPEND = text("UPDATE limits SET tokens = :tokens, updated_at = :now WHERE key = :key")
_SWEEP = text("DELETE FROM limits WHERE updated_at < :before")


@dataclass(slots=True)
class LimitedClaim:
    """What a claim has taken.

    Attributes:
        again_at: When the rate of one of the keys lets another call begin; None: no rate does.
        after: Where to go on: there are more keys; None: these were the last.
    """

    calls: list[DueCall] = field(default_factory=list)
    again_at: float | None = None
    after: str | None = None


class Limits:
    """The limits of one database; each method is one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._sweep_at = 0.0
        lock = f"{_LOCK} FOR UPDATE" if connections.is_postgresql else _LOCK
        self._lock = text(lock).bindparams(bindparam("keys", expanding=True))

    def claim(self, worker: str, executor: str, now: float, room: int, after: str = "") -> LimitedClaim:
        """Take calls that their limits let begin now: they become `submitting`.

        Args:
            room: Most calls.
            after: Only of keys behind this one, in their order.
        """
        with self._connections.read() as connection:
            found = [(row.key, row.policy) for row in connection.execute(_KEYS, {"after": after})]
        claim = LimitedClaim(after=found[-1][0] if len(found) == KEYS_AT_A_TIME else None)
        if not found:
            return claim
        limits = {key: Limit.of(json.loads(policy) if policy else {}) for key, policy in found}
        with self._connections.write() as connection:
            self._take(connection, claim, limits, {"worker": worker, "executor": executor, "now": now}, room)
            if now >= self._sweep_at:
                self._sweep_at = now + _SWEEP_SECONDS
                connection.execute(_SWEEP, {"before": now - _KEEP_SECONDS})
        return claim

    def _take(
        self, connection: Connection, claim: LimitedClaim, limits: Mapping[str, Limit], who: dict[str, Any], room: int
    ) -> None:
        keys = list(limits)
        now = who["now"]
        connection.execute(_ADD, [{"key": key, "now": now} for key in keys])
        kept = {row.key: (row.tokens, row.updated_at) for row in connection.execute(self._lock, {"keys": keys})}
        running: Counter[str] = Counter()
        for key, count in connection.execute(_COUNT, {"keys": keys}):
            running[key] += count
        spent = []
        for key, limit in limits.items():
            tokens = limit.tokens(kept[key][0], now - kept[key][1])
            wanted = limit.room(tokens, running[key])
            number = room if wanted is None else min(wanted, room)
            taken = self._calls(connection, {**who, "key": key, "room": number}) if number else []
            claim.calls += taken
            room -= len(taken)
            if limit.per_second is None:
                continue
            tokens -= len(taken)
            spent.append({"key": key, "tokens": tokens, "now": max(now, kept[key][1])})
            again_at = now + (limit.seconds_until_next(tokens) or 0.0)
            if again_at > now:
                claim.again_at = again_at if claim.again_at is None else min(again_at, claim.again_at)
        if spent:
            connection.execute(_SPEND, spent)

    def _calls(self, connection: Connection, parameters: dict[str, Any]) -> Sequence[DueCall]:
        rows = _CLAIM.mappings(connection, parameters)
        return in_order(DueCall(row["execution_id"], call_row(row, self._connections.vault)) for row in rows)


def in_order(calls: Iterable[DueCall]) -> list[DueCall]:
    """The calls in the order in which they are to begin: what a statement returns has none."""
    return sorted(calls, key=lambda due: due.row.created_at - SECONDS_PER_PRIORITY * due.row.priority)

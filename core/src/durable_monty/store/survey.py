"""What a worker wants to know when it looks at the database: what is due, and when to look again. One query."""

from __future__ import annotations

from dataclasses import dataclass

from durable_monty.store.connections import Connections
from durable_monty.store.fixed import Fixed

_SURVEY = Fixed("""
SELECT
    EXISTS (
        SELECT 1 FROM executions WHERE wake_at <= :now AND status IN ('scheduled', 'running', 'waiting')
            AND (worker IS NULL OR worker = :worker)
    ) AS has_execution,
    EXISTS (
        SELECT 1 FROM schedules s WHERE is_paused = 0 AND (
            next_at <= :now OR queued <> '[]' AND NOT EXISTS (
                SELECT 1 FROM executions e WHERE e.id = s.last_execution
                    AND e.status IN ('scheduled', 'running', 'waiting', 'paused')
            )
        )
    ) AS has_schedule,
    EXISTS (
        SELECT 1 FROM calls WHERE expires_at <= :now AND status IN ('pending', 'submitting', 'submitted')
            AND (worker IS NULL OR worker = :worker)
    ) AS has_overdue,
    EXISTS (SELECT 1 FROM calls WHERE status = 'pending' AND due_at <= :now) AS has_pending,
    (SELECT min(wake_at) FROM executions WHERE wake_at > :now) AS wake_at,
    (SELECT min(due_at) FROM calls WHERE status = 'pending' AND due_at > :now) AS due_at,
    (SELECT min(next_at) FROM schedules WHERE is_paused = 0 AND next_at > :now) AS fires_at,
    (SELECT min(expires_at) FROM calls WHERE expires_at > :now) AS expires_at
""")
_TIMES = ("wake_at", "due_at", "fires_at", "expires_at")


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to do in a database, for one worker.

    Attributes:
        has_execution: Whether `Store.claim` would find an execution.
        has_schedule: Whether a schedule fires, or its queue may move on.
        has_overdue: Whether an open call of this worker, or of nobody, is to be looked at.
        has_pending: Whether calls wait for an executor.
        next_at: The earliest time after now at which one of these may become true by itself; None: never.
    """

    has_execution: bool
    has_schedule: bool
    has_overdue: bool
    has_pending: bool
    next_at: float | None


def survey(connections: Connections, worker: str, now: float) -> Survey:
    """Look at everything at once; disturbs nobody."""
    with connections.read_at_once() as connection:
        (found,) = _SURVEY.mappings(connection, {"worker": worker, "now": now})
    times = [found.pop(name) for name in _TIMES]
    return Survey(
        **{name: bool(value) for name, value in found.items()},
        next_at=min((time for time in times if time is not None), default=None),
    )

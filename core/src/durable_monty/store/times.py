"""When open calls are to be looked at again: time limits, heartbeats, and what heartbeats report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import bindparam, or_, select, text, tuple_, update

from durable_monty.models import CallStatus
from durable_monty.records import CallRow, CallTimes, DueCall, HeardBeat
from durable_monty.store.connections import Connections
from durable_monty.store.rows import call_row
from durable_monty.store.schema import OPEN_STATUSES, calls

_AT_EXECUTOR = (CallStatus.SUBMITTING.value, CallStatus.SUBMITTED.value)
_SLICE = 200
_THIS_ATTEMPT = (
    (calls.c.execution_id == bindparam("of_execution"))
    & (calls.c.call_id == bindparam("of_call"))
    & (calls.c.attempt == bindparam("of_attempt"))
)
# Spelt out: a list of parameters cannot be expanded in a statement that is run for many rows.
_IS_AT_EXECUTOR = text("status IN ('submitting', 'submitted')")
_IS_OPEN = text("status IN ('pending', 'submitting', 'submitted')")
_BEAT = (
    update(calls)
    .where(_THIS_ATTEMPT, _IS_AT_EXECUTOR)
    .values(due_at=bindparam("ends_at"), expires_at=bindparam("look_at"), progress=bindparam("reported"))
)
_ARM = (
    update(calls)
    .where(_THIS_ATTEMPT, _IS_AT_EXECUTOR)
    .values(due_at=bindparam("ends_at"), expires_at=bindparam("look_at"))
)
_POSTPONE = update(calls).where(_THIS_ATTEMPT, _IS_OPEN).values(expires_at=bindparam("look_at"))


class Times:
    """The times of open calls in one database; each method is one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def record_heartbeats(
        self, beats: Sequence[HeardBeat], times: Callable[[CallRow, float], tuple[float, float | None]]
    ) -> float | None:
        """Record signs of life; those of attempts that are over are ignored.

        Args:
            times: For a call as it is stored and the time of the beat: when its attempt has to end, and when it is to be
                looked at again.

        Returns:
            The earliest time at which one of these calls is to be looked at again.
        """
        looks = []
        with self._connections.write() as connection:
            for start in range(0, len(beats), _SLICE):
                some = {(beat.execution_id, beat.call_id): beat for beat in beats[start : start + _SLICE]}
                found = select(calls).where(
                    tuple_(calls.c.execution_id, calls.c.call_id).in_(list(some)), calls.c.status.in_(_AT_EXECUTOR)
                )
                rows = []
                for stored in connection.execute(found).mappings():
                    beat, row = (
                        some[stored["execution_id"], stored["call_id"]],
                        call_row(stored, self._connections.vault),
                    )
                    if row.attempt != beat.attempt:
                        continue
                    ends_at, look_at = times(row, beat.at)
                    looks.append(look_at)
                    key = _key(beat.execution_id, row)
                    reported = self._connections.vault.hide(
                        row.progress if beat.progress is None else beat.progress,
                        "progress",
                        beat.execution_id,
                        beat.call_id,
                    )
                    rows.append({**key, "ends_at": ends_at, "look_at": look_at, "reported": reported})
                if rows:
                    connection.execute(_BEAT, rows)
        return min((time for time in looks if time is not None), default=None)

    def arm(self, items: Sequence[tuple[DueCall, CallTimes]]) -> None:
        """Set the time limits of attempts that are about to be submitted."""
        rows = [
            {**_key(due.execution_id, due.row), "ends_at": times.ends_at, "look_at": times.look_at}
            for due, times in items
        ]
        if rows:
            with self._connections.write() as connection:
                connection.execute(_ARM, rows)

    def overdue(self, worker: str, now: float, limit: int) -> list[DueCall]:
        """Open calls that are to be looked at: those of this worker, and those that nobody runs."""
        query = (
            select(calls)
            .where(calls.c.expires_at <= now, calls.c.status.in_(OPEN_STATUSES))
            .where(or_(calls.c.worker == worker, calls.c.worker.is_(None)))
            .order_by(calls.c.expires_at)
            .limit(limit)
        )
        with self._connections.read() as connection:
            return [
                DueCall(row["execution_id"], call_row(row, self._connections.vault))
                for row in connection.execute(query).mappings()
            ]

    def postpone(self, items: Sequence[tuple[DueCall, float | None]]) -> None:
        """Have these calls looked at again later, or never."""
        rows = [{**_key(due.execution_id, due.row), "look_at": look_at} for due, look_at in items]
        if rows:
            with self._connections.write() as connection:
                connection.execute(_POSTPONE, rows)


def _key(execution_id: str, row: CallRow) -> dict[str, object]:
    return {"of_execution": execution_id, "of_call": row.call_id, "of_attempt": row.attempt}

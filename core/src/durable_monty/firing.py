"""What workers do besides advancing executions: starting what schedules ask for."""

from __future__ import annotations

import logging
from dataclasses import replace

from durable_monty.errors import ExecutionNotFound
from durable_monty.schedules import execution_for, times_of
from durable_monty.store import Store
from durable_monty.store.schedules import Firing, ScheduleRow

log = logging.getLogger(__name__)

MAX_QUEUED = 1_000
"""Times that may wait for the end of one execution; what comes on top is skipped."""

_CANCEL_SECONDS = 60.0
_BROKEN_PAUSE_SECONDS = 60.0


class Firer:
    """Fires schedules. Any number of workers may do it at once; no time is ever fired for twice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_queueing = False
        """Whether some schedule waits for the end of an execution."""

    def fire(self, now: float) -> list[str]:
        """Start what is due; returns the ids of the executions that were started."""
        due = self._store.schedules.due(now)
        started: list[str] = []
        if due:
            for row, is_alive in due:
                if is_alive and row.overlap == "cancel" and row.last_execution is not None:
                    self._cancel(row.last_execution, row.name, now)
            started = self._store.schedules.fire(now, lambda row, is_alive: _decided(row, is_alive, now))
            for execution_id in started:
                log.info("execution started by its schedule", extra={"execution_id": execution_id})
        if due or self.is_queueing:
            self.is_queueing = self._store.schedules.is_queueing()
        return started

    def _cancel(self, execution_id: str, schedule: str, now: float) -> None:
        # Before the next one is started: a worker that dies in between cancels it again, which does nothing.
        reason = f"the next execution of schedule {schedule!r} is due"
        try:
            self._store.steering.request_cancel(execution_id, reason, now + _CANCEL_SECONDS, now)
        except ExecutionNotFound:
            log.info("the execution to be cancelled is gone", extra={"execution_id": execution_id})


def decide(row: ScheduleRow, is_alive: bool, now: float) -> Firing:
    """What becomes of a schedule now.

    Args:
        is_alive: Whether its last execution has not ended.
    """
    next_at, last_at, queued = row.next_at, row.last_at, list(row.queued)
    time: float | None = None
    if next_at is not None and next_at <= now:
        times = times_of(row)
        # Of several times that have passed, the last one stands for all.
        time = times.latest(now, row.created_at if last_at is None else last_at)
        next_at = times.after(now)
        last_at = last_at if time is None else time
    if row.overlap == "queue":
        if time is not None and time not in queued:
            queued = sorted([*queued, time])
        if len(queued) > MAX_QUEUED:
            log.warning("a time is skipped, too many wait", extra={"schedule": row.name, "queued": MAX_QUEUED})
            queued = queued[:MAX_QUEUED]
        time = queued.pop(0) if queued and not is_alive else None
    elif is_alive and row.overlap == "skip":
        time = None
    execution = None if time is None else execution_for(row, time, now)
    return Firing(next_at, last_at, tuple(queued), execution)


def _decided(row: ScheduleRow, is_alive: bool, now: float) -> Firing:
    """As `decide`; a schedule that cannot be read on this machine is put off, and does not stop the others."""
    try:
        return decide(row, is_alive, now)
    except Exception as error:  # noqa: BLE001
        log.warning("schedule %r cannot be fired here, trying again in a minute: %s", row.name, error)
        return replace(Firing(row.next_at, row.last_at, row.queued), next_at=now + _BROKEN_PAUSE_SECONDS)

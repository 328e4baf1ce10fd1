"""Calls whose time is over: the limit of an attempt, of all attempts together, or a heartbeat that did not come.

Executors stop functions at their time limit where they can. What is here holds for every executor, and whatever has
become of the worker that submitted the call: the times are in the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from durable_monty.jobs import OpenJobs, job_id
from durable_monty.models import CallStatus, Failure
from durable_monty.planning import out_of_attempt_time, out_of_total_time, total_ends_at, without_heartbeat
from durable_monty.records import CallRow, CallTimes, DueCall, HeardBeat
from durable_monty.store import Store

BEGUN_WITHOUT_LIMIT = 32503680000.0
"""When an attempt ends that has begun and may run as long as it likes: in the year 3000."""

_MAX_OVERDUE = 500
_WRITE_INTERVAL_SECONDS = 1.0
# A message may have been on its way, and in our hands, for so long.
_DELIVERY_SECONDS = 0.5


class Expiry:
    """Keeps the times of the open calls of one worker.

    Args:
        grace_seconds: How long after its time limit an attempt is ended here if its executor has not ended it.
    """

    def __init__(self, store: Store, jobs: OpenJobs, grace_seconds: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._jobs = jobs
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._heard: dict[str, HeardBeat] = {}
        self._written_at: dict[str, float] = {}
        self.next_write_at: float | None = None

    def hear(self, beats: Sequence[HeardBeat]) -> None:
        """Take signs of life; `write` makes them durable."""
        for beat in beats:
            older = self._heard.get(beat.job_id)
            self._heard[beat.job_id] = beat if older is None else older.followed_by(beat)

    def write(self, ending: Sequence[str] = ()) -> float | None:
        """Make durable what has been heard, for each call at most once a second.

        Args:
            ending: Jobs whose outcome has come: what they reported last is written at once.

        Returns:
            The earliest time at which one of these calls is to be looked at.
        """
        self.next_write_at = None
        if not self._heard:
            return None
        now, forced = self._clock(), set(ending)
        due = []
        for key, beat in self._heard.items():
            write_at = self._written_at.get(key, 0.0) + self._interval(key)
            if key in forced or write_at <= now:
                due.append(beat)
            else:
                self.next_write_at = min(write_at, self.next_write_at or write_at)
        look_at = self._store.times.record_heartbeats(due, self._after_heartbeat) if due else None
        for beat in due:
            del self._heard[beat.job_id]
            self._written_at[beat.job_id] = now
        for key in forced:
            self._written_at.pop(key, None)
        return look_at

    def overdue(self) -> list[tuple[DueCall, Failure]]:
        """The calls whose time is over, and what they have failed with."""
        now = self._clock()
        over, later = [], []
        for due in self._store.times.overdue(self._jobs.worker, now, _MAX_OVERDUE):
            verdict = self._verdict(due, now)
            if isinstance(verdict, Failure):
                over.append((due, verdict))
            else:
                later.append((due, verdict))
        self._store.times.postpone(later)
        return over

    def _verdict(self, due: DueCall, now: float) -> Failure | float | None:
        """What a call has failed with, or when to look at it again."""
        row = due.row
        times = [total_ends_at(row)]
        failure = None
        waits = self._grace_seconds
        if times[0] is not None and times[0] <= now:
            failure = out_of_total_time(row)
        elif row.status is not CallStatus.PENDING and row.due_at is not None:
            times.append(row.due_at)
            if row.due_at <= now:
                failure = out_of_attempt_time(row)
            elif (silence := _heartbeat_seconds(row)) is not None:
                failure = without_heartbeat(row)
                waits = max(waits, silence)
        if failure is None:
            return min((at for at in times if at is not None and at < BEGUN_WITHOUT_LIMIT), default=None)
        # What a job that was taken over has told meanwhile may be on its way to us.
        job = self._jobs.get(job_id(due))
        since = job.taken_over_at if job is not None else None
        left = waits - (time.monotonic() - since) if since is not None else 0.0
        return failure if left <= 0 else now + left

    def _after_heartbeat(self, row: CallRow, at: float) -> tuple[float, float | None]:
        times = begun(row, at, self._grace_seconds)
        return times.ends_at, times.look_at

    def _interval(self, key: str) -> float:
        job = self._jobs.get(key)
        seconds = _heartbeat_seconds(job.due.row) if job is not None else None
        return _WRITE_INTERVAL_SECONDS if seconds is None else min(_WRITE_INTERVAL_SECONDS, seconds / 4)


def begun(row: CallRow, at: float, grace_seconds: float) -> CallTimes:
    """The times of an attempt that has begun, or has shown that it is alive."""
    ends_at = row.due_at
    if ends_at is None:
        ends_at = BEGUN_WITHOUT_LIMIT if row.timeout_seconds is None else at + row.timeout_seconds + grace_seconds
    silence = _heartbeat_seconds(row)
    times = [ends_at, total_ends_at(row), None if silence is None else at + silence + _DELIVERY_SECONDS]
    look_at = min(found for found in times if found is not None)
    return CallTimes(ends_at, look_at if look_at < BEGUN_WITHOUT_LIMIT else None)


def _heartbeat_seconds(row: CallRow) -> float | None:
    seconds = (row.policy or {}).get("heartbeat_seconds")
    return None if seconds is None else float(seconds)

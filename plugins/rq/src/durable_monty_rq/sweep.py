"""Finding jobs whose reply will never come: killed, stopped, expired, flushed. Lost is not failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from rq import Queue
from rq.job import Job as RQJob
from rq.registry import FailedJobRegistry
from rq.results import Result

from durable_monty.models import Failure, Outcome
from durable_monty_rq.failures import read_failure
from durable_monty_rq.settings import RQSettings

# What is not as it should be with these jobs: nothing is answered for one that waits in a queue.
# A job that RQ calls queued although everything that was queued later has been taken was taken by a worker that died.
_SUSPECTS = """
local suspects = {}
local heads = {}
for i = 1, #KEYS do
    local job = redis.call('HMGET', KEYS[i], 'status', 'last_heartbeat', 'origin', 'enqueued_at')
    local status = job[1]
    if status == 'queued' and job[3] then
        local queue = ARGV[1] .. job[3]
        if heads[queue] == nil then
            local head = redis.call('LINDEX', queue, 0)
            heads[queue] = head and redis.call('HGET', ARGV[2] .. head, 'enqueued_at') or ''
        end
        if heads[queue] ~= '' and heads[queue] <= job[4] then
            status = nil
        else
            status = 'taken'
        end
    end
    if status ~= nil then
        suspects[#suspects + 1] = {i - 1, status or '', job[2] or '', job[3] or ''}
    end
end
return suspects
"""


_PRUNE_SECONDS = 600.0
_POLL_SECONDS = 2.0
"""Between two polls of an idle worker there is less than this."""
_ANSWERED = ("", "finished")
"""How a job looks that has replied: RQ has forgotten it, or has finished it."""


@dataclass(slots=True)
class _Heard:
    """The latest sign of life of a running job, by the monotonic clock.

    Attributes:
        since: When it was first seen.
        looked_at: When it was last looked at.
    """

    sign: str
    since: float
    looked_at: float


class Sweep:
    """Looks at each open job now and then, and tells which are lost or have failed in RQ's own way."""

    def __init__(self, connection: redis.Redis, settings: RQSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._look_at: dict[str, float] = {}
        self._missing_since: dict[str, float] = {}
        self._heard: dict[str, _Heard] = {}
        self._prune_at = 0.0

    def look(self, job_ids: Sequence[str], *, is_drained: bool = True) -> list[Outcome]:
        """The outcomes of those jobs whose reply will never come; at one that was looked at just now, nothing is done.

        Args:
            is_drained: Whether every reply that had been pushed has been read; until then a job that is gone may
                have replied.
        """
        job_ids = self._due(job_ids)
        if not job_ids:
            return []
        keys = [self._key(job_id) for job_id in job_ids]
        prefixes = (Queue.redis_queue_namespace_prefix, RQJob.redis_job_namespace_prefix)
        suspects: Any = self._connection.eval(_SUSPECTS, len(keys), *keys, *prefixes)
        outcomes = []
        suspected = set()
        for index, *found in suspects:
            status, heartbeat, queue = (text.decode() for text in found)
            job_id = job_ids[int(index)]
            suspected.add(job_id)
            if status in _ANSWERED and not is_drained:
                continue
            failure = self._verdict(job_id, status, heartbeat, queue)
            if failure is not None:
                outcomes.append(Outcome(job_id, failure=failure))
        for job_id in job_ids:
            if job_id not in suspected:
                self._missing_since.pop(job_id, None)
        return outcomes

    def forget(self, job_ids: Sequence[str]) -> None:
        """Do not look at these jobs any more."""
        for job_id in job_ids:
            self._look_at.pop(job_id, None)
            self._missing_since.pop(job_id, None)
            self._heard.pop(job_id, None)

    def remove(self, job_ids: Sequence[str]) -> None:
        """Remove what RQ keeps of jobs that did not end well; their outcomes are durable."""
        pipeline = self._connection.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hget(self._key(job_id), "origin")
        origins = pipeline.execute()
        pipeline = self._connection.pipeline(transaction=False)
        for job_id, origin in zip(job_ids, origins, strict=True):
            rq_id = self._settings.rq_id(job_id)
            pipeline.delete(self._key(job_id), Result.get_key(rq_id))
            if origin is not None:
                pipeline.zrem(FailedJobRegistry(origin.decode(), connection=self._connection).key, rq_id)
                pipeline.lrem(Queue(origin.decode(), connection=self._connection).intermediate_queue_key, 0, rq_id)
        pipeline.execute()

    def _due(self, job_ids: Sequence[str]) -> list[str]:
        """Those whose last look, or whose first mention, is an interval ago."""
        now = time.monotonic()
        interval = self._settings.sweep_interval_seconds
        due = [job_id for job_id in job_ids if self._look_at.setdefault(job_id, now + interval) <= now]
        self._look_at.update((job_id, now + interval) for job_id in due)
        if now >= self._prune_at:
            # Jobs that were cancelled, or that another worker has completed, are not mentioned again.
            self._prune_at = now + _PRUNE_SECONDS
            gone = [
                job_id for job_id, look_at in list(self._look_at.items()) if look_at < now - _PRUNE_SECONDS - interval
            ]
            self.forget(gone)
        return due

    def _key(self, job_id: str) -> str:
        return RQJob.key_for(self._settings.rq_id(job_id))

    def _is_waiting(self, job_id: str, queue: str) -> bool:
        """Whether the job is in its queue after all: put back, or behind one that was put in by a clock that is ahead."""
        key = Queue(queue, connection=self._connection).key
        return self._connection.lpos(key, self._settings.rq_id(job_id)) is not None

    def _verdict(self, job_id: str, status: str, heartbeat: str, queue: str) -> Failure | None:
        if status == "":
            # Twice: between two commands of a worker a job may be neither here nor there.
            seen_for = self._seen_for(job_id)
            if seen_for >= self._settings.sweep_interval_seconds * 0.9:
                return Failure("lost", "Lost", "its job is not in Redis any more: flushed, expired or restarted")
        elif status == "taken":
            if self._seen_for(job_id) >= self._settings.lost_after_seconds and not self._is_waiting(job_id, queue):
                return Failure("lost", "Lost", "it was taken from the queue by a worker that died before it began")
        elif status == "started":
            seconds = self._silent_for(job_id, heartbeat)
            if seconds >= self._settings.lost_after_seconds:
                return Failure("lost", "Lost", f"its rq worker has not been heard of for {seconds:.0f} s")
        elif status in ("failed", "stopped", "canceled"):
            return read_failure(self._error(job_id) or status, queue, self._settings.serializer)
        elif status == "finished" and self._seen_for(job_id) >= 3 * self._settings.claim_after_seconds:
            # A reply that another worker has read would have come back to us well before.
            return Failure("lost", "Lost", "RQ has finished it, and its reply did not come")
        return None

    def _seen_for(self, job_id: str) -> float:
        """Seconds since this job was first found missing."""
        now = time.monotonic()
        return now - self._missing_since.setdefault(job_id, now)

    def _silent_for(self, job_id: str, heartbeat: str) -> float:
        """Seconds for which this sign of life of the job has been the latest, as far as it was looked at.

        What the sign says is the time of another machine, whose clock may be wrong; only that it changes counts. Nor
        does the time count in which nobody looked: Redis was away, for the job as well, or this process was stopped.
        """
        now = time.monotonic()
        heard = self._heard.get(job_id)
        longest_gap = self._settings.lost_after_seconds / 3 + 2 * self._settings.sweep_interval_seconds + _POLL_SECONDS
        if heard is None or heard.sign != heartbeat or now - heard.looked_at > longest_gap:
            heard = self._heard[job_id] = _Heard(heartbeat, now, now)
        heard.looked_at = now
        return now - heard.since

    def _error(self, job_id: str) -> str:
        """RQ's own account of what went wrong."""
        entries: Any = self._connection.xrevrange(Result.get_key(self._settings.rq_id(job_id)), count=1)
        if not entries:
            return ""
        entry_id, payload = entries[0]
        payload = {key: value for key, value in payload.items() if key != b"return_value"}
        result = Result.restore(job_id, entry_id.decode(), payload, self._connection)
        return (result.exc_string or "").strip()

"""Reading replies from the stream: in batches, at least once, acknowledged when they are durable."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import redis

from durable_monty.models import Heartbeat, Outcome

BATCH = 1000
GROUP = "durable-monty"

# Where replies come in numbers a pause before each read makes it one read for many of them. It is a share of the time in
# which all open jobs would reply at the rate of the moment, so that workers do not run dry meanwhile, and nobody waits for
# much longer than his job takes to get its turn. Where they come one by one there is none.
_SHARE = 0.4
_MAX_LINGER_SECONDS = 0.3
_FAST_PER_SECOND = 100.0
_WINDOW_SECONDS = 0.02
_FORGET_CONSUMER_SECONDS = 3600
_MAX_BLOCK_SECONDS = 1.0


class Results:
    """The stream of replies, read as one consumer of a group that all workers of one database share.

    Args:
        claim_after_seconds: A reply that another worker read and did not acknowledge for so long is read again here.
    """

    def __init__(self, connection: redis.Redis, stream: str, consumer: str, claim_after_seconds: float) -> None:
        self._connection = connection
        self._stream = stream
        self._consumer = consumer
        self._claim_after_seconds = claim_after_seconds
        self._lock = threading.Lock()
        self._entries: dict[str, list[bytes]] = defaultdict(list)
        self._beats: dict[str, bytes] = {}
        self._has_group = False
        self._claim_at = 0.0
        self._linger_seconds = 0.0
        self._seen = 0
        self._seen_since = 0.0
        self._stopping = threading.Event()
        self.is_drained = False
        """Whether the last read has left nothing to read."""

    def start(self) -> None:
        """Wait again, after `stop`."""
        self._stopping.clear()

    def stop(self) -> None:
        """Do not wait any more."""
        self._stopping.set()

    def read(self, wait_seconds: float, expected: int) -> list[Outcome | Heartbeat]:
        """What has been pushed since; waits for the first.

        Args:
            expected: How many replies are to come. Where there are many, a pause before the read makes it one read for
                many of them.
        """
        self._stopping.wait(self._linger_seconds)
        self.is_drained = False
        try:
            self._ensure_group()
            entries = self._new(wait_seconds)
            is_drained = len(entries) < BATCH
            self._adapt(len(entries), expected)
            if time.monotonic() >= self._claim_at:
                entries += self._abandoned()
                self._claim_at = time.monotonic() + self._claim_after_seconds / 2
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # Redis has lost its data; with the stream the group is gone.
            self._has_group = False
            return []
        self.is_drained = is_drained
        return self._outcomes(entries)

    def _adapt(self, count: int, expected: int) -> None:
        """Choose the pause before the next read by how many replies have come since the last choice."""
        self._seen += count
        seconds = time.monotonic() - self._seen_since
        if seconds < _WINDOW_SECONDS:
            return
        rate = self._seen / seconds
        self._seen, self._seen_since = 0, self._seen_since + seconds
        is_fast = rate >= _FAST_PER_SECOND
        self._linger_seconds = min(_SHARE * expected / rate, _MAX_LINGER_SECONDS) if is_fast else 0.0

    def acknowledge(self, job_ids: Iterable[str]) -> None:
        """Drop the replies of these jobs from the stream; of unknown jobs there are none."""
        with self._lock:
            entries = [entry for job_id in job_ids for entry in self._entries.get(job_id, ())]
        self._drop(entries)
        with self._lock:
            for job_id in job_ids:
                self._entries.pop(job_id, None)
                self._beats.pop(job_id, None)

    def _drop(self, entries: list[bytes]) -> None:
        if entries:
            pipeline = self._connection.pipeline(transaction=False)
            pipeline.xack(self._stream, GROUP, *entries)
            pipeline.xdel(self._stream, *entries)
            pipeline.execute()

    def _ensure_group(self) -> None:
        if self._has_group:
            return
        with contextlib.suppress(redis.ResponseError):  # BUSYGROUP: it is there
            self._connection.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        self._has_group = True

    def _new(self, wait_seconds: float) -> list[Any]:
        # Not longer: a read that waits does not hear of `stop`.
        block = max(int(min(wait_seconds, _MAX_BLOCK_SECONDS) * 1000), 1) if wait_seconds else None
        answer: Any = self._connection.xreadgroup(GROUP, self._consumer, {self._stream: ">"}, count=BATCH, block=block)
        streams = answer.items() if isinstance(answer, dict) else answer or ()
        return [entry for _, entries in streams for entry in _flat(entries)]

    def _abandoned(self) -> list[Any]:
        """Replies that were read by a worker that died before they were durable."""
        found: list[Any] = []
        start: Any = "0-0"
        while True:
            start, entries, *_ = self._connection.xautoclaim(
                self._stream, GROUP, self._consumer, int(self._claim_after_seconds * 1000), start, count=BATCH
            )
            found += [entry for entry in entries if entry[1] is not None]
            if start in (b"0-0", "0-0"):
                break
        for consumer in self._connection.xinfo_consumers(self._stream, GROUP):
            if not consumer["pending"] and consumer["idle"] > _FORGET_CONSUMER_SECONDS * 1000:
                self._connection.xgroup_delconsumer(self._stream, GROUP, consumer["name"])
        return found

    def _outcomes(self, entries: Iterable[Any]) -> list[Outcome | Heartbeat]:
        outcomes: list[Outcome | Heartbeat] = []
        passed: list[bytes] = []
        with self._lock:
            for entry_id, fields in entries:
                job_id = fields[b"job"].decode()
                if entry_id == self._beats.get(job_id):
                    # Claimed again by ourselves: nothing has been heard of this job since.
                    passed.append(entry_id)
                    self._entries[job_id].remove(entry_id)
                    del self._beats[job_id]
                    continue
                self._entries[job_id].append(entry_id)
                if b"beat" not in fields:
                    outcomes.append(Outcome(job_id, reply=fields[b"reply"]))
                    continue
                # The newest says all that the older ones said; it stays until the next, should this process die now.
                older = self._beats.get(job_id)
                if older is not None and older in self._entries[job_id]:
                    self._entries[job_id].remove(older)
                    passed.append(older)
                self._beats[job_id] = entry_id
                outcomes.append(Heartbeat(job_id, fields[b"beat"]))
        self._drop(passed)
        return outcomes


def _flat(entries: Any) -> Any:
    """redis-py answers in RESP3 with one more list around the entries."""
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple | list):
        return [entry for inner in entries for entry in inner]
    return entries

"""Reading replies from the stream: in batches, at least once, acknowledged when they are durable."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import redis

from durable_monty.models import Outcome

BATCH = 1000
GROUP = "durable-monty"
CLAIM_AFTER_SECONDS = 30.0
"""A reply that another worker read and did not acknowledge for so long is read again here."""

# Measured with two `SimpleWorker`s, 600 replies a second: 10,000 replies take 60 reads, and a single one waits 0.4 ms.
_LINGER_SECONDS_PER_REPLY = 0.0004
_MAX_LINGER_SECONDS = 0.4
_FORGET_CONSUMER_SECONDS = 3600
_MAX_BLOCK_SECONDS = 1.0


class Results:
    """The stream of replies, read as one consumer of a group that all workers of one database share."""

    def __init__(self, connection: redis.Redis, stream: str, consumer: str) -> None:
        self._connection = connection
        self._stream = stream
        self._consumer = consumer
        self._lock = threading.Lock()
        self._entries: dict[str, list[bytes]] = defaultdict(list)
        self._has_group = False
        self._claim_at = 0.0
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Do not wait any more."""
        self._stopping.set()

    def read(self, wait_seconds: float, expected: int) -> list[Outcome]:
        """What has been pushed since; waits for the first.

        Args:
            expected: How many replies are to come. Where there are many, a pause before the read makes it one read for
                many of them.
        """
        self._stopping.wait(min(expected * _LINGER_SECONDS_PER_REPLY, _MAX_LINGER_SECONDS))
        try:
            self._ensure_group()
            entries = self._new(wait_seconds)
            if time.monotonic() >= self._claim_at:
                entries += self._abandoned()
                self._claim_at = time.monotonic() + CLAIM_AFTER_SECONDS / 2
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # Redis has lost its data; with the stream the group is gone.
            self._has_group = False
            return []
        return self._outcomes(entries)

    def acknowledge(self, job_ids: Iterable[str]) -> None:
        """Drop the replies of these jobs from the stream; of unknown jobs there are none."""
        with self._lock:
            entries = [entry for job_id in job_ids for entry in self._entries.get(job_id, ())]
        if entries:
            pipeline = self._connection.pipeline(transaction=False)
            pipeline.xack(self._stream, GROUP, *entries)
            pipeline.xdel(self._stream, *entries)
            pipeline.execute()
        with self._lock:
            for job_id in job_ids:
                self._entries.pop(job_id, None)

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
                self._stream, GROUP, self._consumer, int(CLAIM_AFTER_SECONDS * 1000), start, count=BATCH
            )
            found += [entry for entry in entries if entry[1] is not None]
            if start in (b"0-0", "0-0"):
                break
        for consumer in self._connection.xinfo_consumers(self._stream, GROUP):
            if not consumer["pending"] and consumer["idle"] > _FORGET_CONSUMER_SECONDS * 1000:
                self._connection.xgroup_delconsumer(self._stream, GROUP, consumer["name"])
        return found

    def _outcomes(self, entries: Iterable[Any]) -> list[Outcome]:
        outcomes = []
        with self._lock:
            for entry_id, fields in entries:
                job_id = fields[b"job"].decode()
                self._entries[job_id].append(entry_id)
                outcomes.append(Outcome(job_id, reply=fields[b"reply"]))
        return outcomes


def _flat(entries: Any) -> Any:
    """redis-py answers in RESP3 with one more list around the entries."""
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple | list):
        return [entry for inner in entries for entry in inner]
    return entries

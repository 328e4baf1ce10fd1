"""Putting calls into RQ's queues: each job id once, whoever submits it how often."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import redis
from rq import Queue
from rq.job import Job as RQJob

from durable_monty.models import Call
from durable_monty_rq.settings import RQSettings

FAILURE_TTL_SECONDS = 24 * 3600
RESULT_TTL_SECONDS = 600
"""How long RQ remembers a job that ended well, so that submitting it again does not run it again. Its reply is in the
stream, which nothing expires."""

_MAX_TRIES = 5
_AT_ONCE = 250
"""Calls enqueued together: with a thousand, workers would wait a tenth of a second for the first."""

_KNOWN = """
local known = {}
for i = 1, #KEYS do
    known[i] = redis.call('EXISTS', KEYS[i])
end
return known
"""


class Queues:
    """The queues of one Redis that this executor puts jobs into."""

    def __init__(self, connection: redis.Redis, settings: RQSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._queues: dict[str, Queue] = {}

    def get(self, name: str | None) -> Queue:
        """The queue of this name; None: the executor's own."""
        name = name or self._settings.queue
        if name not in self._queues:
            serializer = "json" if self._settings.serializer == "json" else None
            self._queues[name] = Queue(name, connection=self._connection, serializer=serializer)
        return self._queues[name]

    def enqueue(self, calls: Sequence[Call]) -> None:
        """Enqueue those calls that are not there yet; all of them or, if this raises, maybe some.

        Between looking and enqueuing nobody else can have enqueued one of them: the keys are watched.

        Raises:
            redis.RedisError: Redis does not answer, or other submitters were faster again and again.
        """
        for start in range(0, len(calls), _AT_ONCE):
            self._enqueue_surely(calls[start : start + _AT_ONCE])

    def known(self, job_ids: Sequence[str], pipeline: redis.client.Pipeline | None = None) -> list[bool]:
        """Whether each job is there, or was."""
        keys = [RQJob.key_for(self._settings.rq_id(job_id)) for job_id in job_ids]
        answer: Any = (pipeline or self._connection).eval(_KNOWN, len(keys), *keys)
        return [bool(there) for there in answer]

    def _enqueue_surely(self, calls: Sequence[Call]) -> None:
        for attempt in range(1, _MAX_TRIES + 1):
            try:
                self._enqueue(calls)
            except redis.WatchError:
                if attempt == _MAX_TRIES:
                    raise
            else:
                return

    def _enqueue(self, calls: Sequence[Call]) -> None:
        with self._connection.pipeline(transaction=True) as pipeline:
            pipeline.watch(*(RQJob.key_for(self._settings.rq_id(call.job_id)) for call in calls))
            known = self.known([call.job_id for call in calls], pipeline)
            by_queue: dict[str | None, list[Call]] = defaultdict(list)
            for call, is_known in zip(calls, known, strict=True):
                if not is_known:
                    by_queue[call.queue].append(call)
            if not by_queue:
                return
            pipeline.multi()
            for name, some in by_queue.items():
                self.get(name).enqueue_many([self._job(call) for call in some], pipeline=pipeline)
            pipeline.execute()

    def _job(self, call: Call) -> Any:
        """One job: a function path, three texts and a number; no serializer of RQ carries anything of the user's."""
        return Queue.prepare_data(
            "durable_monty_rq.remote.run",
            args=(self._settings.stream, call.job_id, call.envelope.decode(), self._settings.pulse_seconds),
            job_id=self._settings.rq_id(call.job_id),
            timeout=self._timeout(call),
            result_ttl=RESULT_TTL_SECONDS,
            failure_ttl=FAILURE_TTL_SECONDS,
            description=call.function_name,
        )

    def _timeout(self, call: Call) -> int:
        """In whole seconds, as RQ takes it; -1: none."""
        seconds = call.timeout_seconds or self._settings.job_timeout_seconds
        return -1 if seconds is None else math.ceil(seconds)

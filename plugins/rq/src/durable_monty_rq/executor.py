"""The executor: what the hooks do, in terms of queues, results and the sweep."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import threading
import uuid
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job as RQJob
from rq.job import JobStatus

from durable_monty.errors import ConfigError
from durable_monty.hookspecs import ExecutorContext, hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Finding, Heartbeat, Job, Outcome, Refused
from durable_monty_rq.checks import check
from durable_monty_rq.queueing import Queues
from durable_monty_rq.results import Results
from durable_monty_rq.settings import RQSettings
from durable_monty_rq.sweep import Sweep

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
"""Less than half a lease: the worker's main thread waits for an answer at most so long."""


class Executor:
    """Runs calls on the workers of Redis Queue.

    Args:
        connection: A client of one's own in place of the one that the settings describe; it must not decode responses,
            and is not closed at the end.

    Raises:
        ConfigError: The client decodes responses.
    """

    Settings = RQSettings
    interface_version = 1
    capabilities = Capabilities(
        caller_ids=True,
        can_find=True,
        cancel=True,
        survives_restart=True,
        max_batch=1000,
        max_in_flight=1000,
        poll_interval_seconds=0.0,
        heartbeats=True,
        isolation="machine",
    )

    def __init__(self, settings: RQSettings, connection: redis.Redis | None = None) -> None:
        self.settings = settings
        self.capabilities = dataclasses.replace(type(self).capabilities, max_in_flight=settings.max_in_flight)
        if connection is not None and connection.get_connection_kwargs().get("decode_responses"):
            raise ConfigError(
                "making the RQ executor: the client decodes responses, which spoils what RQ stores; give one that was "
                "made without decode_responses=True"
            )
        self._is_own = connection is None
        self._connection = connection if connection is not None else _connect(settings)
        self._queues = Queues(self._connection, settings)
        self._results = Results(self._connection, settings.stream, _consumer(), settings.claim_after_seconds)
        self._sweep = Sweep(self._connection, settings)
        self._log = log
        self._lock = threading.Lock()
        # Not looked at by the sweep: they are not in Redis yet.
        self._submitting: set[str] = set()
        # Outcomes that the sweep told of, whose remains in RQ are to be removed.
        self._swept: set[str] = set()
        self._accepted = 0

    @hookimpl
    def start(self, context: ExecutorContext) -> None:
        """Say at once if Redis is not there; calls wait until it is."""
        self._log = context.logger
        self._results.start()
        try:
            if self._is_own:
                with _connect(self.settings, _CONNECT_SECONDS) as connection:
                    connection.ping()
            else:
                self._connection.ping()
        except redis.RedisError as error:
            self._log.warning("Redis at %s does not answer, its calls wait: %s", self._where, error)

    @hookimpl
    def stop(self, grace_seconds: float) -> None:
        """Close connections; jobs go on, and their replies wait in the stream."""
        self._results.stop()
        if self._is_own:
            self._connection.close()

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Enqueue the calls that are not in Redis yet, some hundred in one round trip after two for looking."""
        with self._lock:
            self._submitting.update(call.job_id for call in calls)
        try:
            self._queues.enqueue(calls)
        finally:
            with self._lock:
                self._submitting.difference_update(call.job_id for call in calls)
        self._accepted += len(calls)
        return [Accepted(call.job_id) for call in calls]

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome | Heartbeat]:
        """Replies and heartbeats from the stream; now and then, those of `jobs` whose reply will never come."""
        outcomes = self._results.read(wait_seconds, len(jobs))
        replied = {outcome.job_id for outcome in outcomes}
        with self._lock:
            missing = [job.job_id for job in jobs if job.job_id not in self._submitting]
        lost = self._sweep.look(
            [job_id for job_id in missing if job_id not in replied], is_drained=self._results.is_drained
        )
        with self._lock:
            self._swept.update(outcome.job_id for outcome in lost)
        return outcomes + lost

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None:
        """Drop replies from the stream, and what RQ keeps of jobs that did not end well."""
        job_ids = [job.job_id for job in jobs]
        self._results.acknowledge(job_ids)
        self._sweep.forget(job_ids)
        with self._lock:
            swept = [job_id for job_id in job_ids if job_id in self._swept]
        if swept:
            self._sweep.remove(swept)
            with self._lock:
                self._swept.difference_update(swept)

    @hookimpl
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """Remove queued jobs; stop running ones, where the worker class can (`SimpleWorker` cannot)."""
        return {job.job_id: self._cancel(job.job_id, force) for job in jobs}

    @hookimpl
    def find(self, jobs: Sequence[Job]) -> dict[str, Literal["known", "absent", "unknown"]]:
        """Whether Redis has the jobs, or had them until they replied."""
        known = self._queues.known([job.job_id for job in jobs])
        return {job.job_id: "known" if there else "absent" for job, there in zip(jobs, known, strict=True)}

    @hookimpl
    def check(self) -> list[Finding]:
        """Whether Redis answers, its version and persistence, whether a worker listens, and what that worker has."""
        return check(self._connection, self._queues, self.settings, self._where)

    @hookimpl
    def stats(self) -> dict[str, int | float]:
        """Calls accepted by this process; jobs that wait in its own queue, and replies that nobody acknowledged."""
        waiting = len(self._queues.get(None))
        replies: Any = self._connection.xlen(self.settings.stream)
        return {"accepted": self._accepted, "queued": waiting, "replies": int(replies)}

    @property
    def _where(self) -> str:
        """Redis' address, without user and password."""
        parts = urlsplit(self.settings.redis_url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"

    def _cancel(self, job_id: str, force: bool) -> bool:
        rq_id = self.settings.rq_id(job_id)
        try:
            job = RQJob.fetch(rq_id, connection=self._connection, serializer=self._queues.get(None).serializer)
        except NoSuchJobError:
            return True
        if job.get_status() is not JobStatus.STARTED:
            job.delete()
            return True
        if force:
            try:
                send_stop_job_command(self._connection, rq_id)
            except InvalidJobOperation:
                return True
        # Asked to stop: whether it does is for its worker to say.
        return False


class RQExecutor(Executor):
    """The RQ executor for scripts: `RQExecutor(queue_name="my-queue")`, `RQExecutor(Redis(...), "my-queue")`.

    Args:
        redis_conn: A client that does not decode responses; None: as `redis_url` says.
        queue_name: The RQ queue.
        redis_url: As in `RQSettings`.
        settings: The other fields of `RQSettings`.
    """

    def __init__(
        self,
        redis_conn: redis.Redis | None = None,
        queue_name: str = "durable-monty",
        *,
        redis_url: str | None = None,
        **settings: Any,
    ) -> None:
        if redis_url is not None:
            settings["redis_url"] = redis_url
        super().__init__(RQSettings(queue=queue_name, **settings), redis_conn)


def _connect(settings: RQSettings, answer_seconds: float = _ANSWER_SECONDS) -> redis.Redis:
    """A client; nothing is connected yet.

    It opens a connection that broke once more and tries nothing else again: that is the core's to do, with a delay that
    holds up no other executor.
    """
    options: dict[str, Any] = {
        "socket_timeout": answer_seconds,
        "retry": Retry(NoBackoff(), 1, (redis.ConnectionError,)),
    }
    if not settings.redis_url.startswith("unix:"):
        options["socket_connect_timeout"] = _CONNECT_SECONDS
    if settings.redis_password is not None:
        options["password"] = settings.redis_password.get_secret_value()
    connection: redis.Redis = redis.Redis.from_url(settings.redis_url, **options)
    return connection


def _consumer() -> str:
    """A name for this process in the stream's group."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

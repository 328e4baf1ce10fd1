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
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job as RQJob
from rq.job import JobStatus

from durable_monty.hookspecs import ExecutorContext, hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Finding, Job, Outcome, Refused
from durable_monty_rq.checks import check
from durable_monty_rq.queueing import Queues
from durable_monty_rq.results import Results
from durable_monty_rq.settings import RQSettings
from durable_monty_rq.sweep import Sweep

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 30.0


class Executor:
    """Runs calls on the workers of Redis Queue.

    Args:
        connection: A client of one's own in place of the one that the settings describe; it must not decode responses.
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
        isolation="machine",
    )

    def __init__(self, settings: RQSettings, connection: redis.Redis | None = None) -> None:
        self.settings = settings
        self.capabilities = dataclasses.replace(type(self).capabilities, max_in_flight=settings.max_in_flight)
        self._connection = connection if connection is not None else _connect(settings)
        self._queues = Queues(self._connection, settings)
        self._results = Results(self._connection, settings.stream, _consumer())
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
        try:
            self._connection.ping()
        except redis.RedisError as error:
            self._log.warning("Redis at %s does not answer, its calls wait: %s", self._where, error)

    @hookimpl
    def stop(self, grace_seconds: float) -> None:
        """Close connections; jobs go on, and their replies wait in the stream."""
        self._results.stop()
        self._connection.close()

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Enqueue the calls that are not in Redis yet, in one round trip after two for looking."""
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
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome]:
        """Replies from the stream; now and then, those of `jobs` whose reply will never come."""
        outcomes = self._results.read(wait_seconds, len(jobs))
        if self._sweep.is_due:
            replied = {outcome.job_id for outcome in outcomes}
            with self._lock:
                open_jobs = [job.job_id for job in jobs if job.job_id not in self._submitting]
            lost = self._sweep.look([job_id for job_id in open_jobs if job_id not in replied])
            with self._lock:
                self._swept.update(outcome.job_id for outcome in lost)
            outcomes += lost
        return outcomes

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None:
        """Drop replies from the stream, and what RQ keeps of jobs that did not end well."""
        job_ids = [job.job_id for job in jobs]
        self._results.acknowledge(job_ids)
        with self._lock:
            swept = [job_id for job_id in job_ids if job_id in self._swept]
        if swept:
            self._sweep.forget(swept)
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
        try:
            job = RQJob.fetch(job_id, connection=self._connection, serializer=self._queues.get(None).serializer)
        except NoSuchJobError:
            return True
        if job.get_status() is not JobStatus.STARTED:
            job.delete()
            return True
        if force:
            try:
                send_stop_job_command(self._connection, job_id)
            except InvalidJobOperation:
                return True
            with self._lock:
                self._swept.add(job_id)
        return force


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


def _connect(settings: RQSettings) -> redis.Redis:
    """A client; nothing is connected yet."""
    options: dict[str, Any] = {"socket_connect_timeout": _CONNECT_SECONDS, "socket_timeout": _ANSWER_SECONDS}
    if settings.redis_password is not None:
        options["password"] = settings.redis_password.get_secret_value()
    connection: redis.Redis = redis.Redis.from_url(settings.redis_url, **options)
    return connection


def _consumer() -> str:
    """A name for this process in the stream's group."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

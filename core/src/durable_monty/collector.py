"""Gathering the outcomes of jobs, and deciding what each means for its call."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from durable_monty.bell import Bell
from durable_monty.durations import backoff_seconds
from durable_monty.envelope import decode_heartbeat, decode_reply
from durable_monty.errors import DecodeError, ExecutionNotFound, SignatureMismatch
from durable_monty.interpreter import DEFAULT_MAX_VALUE_BYTES, too_large
from durable_monty.jobs import OpenJobs
from durable_monty.loaded import LoadedExecutor
from durable_monty.models import CallStatus, Failure, Heartbeat, Job, Outcome, parse_job_id
from durable_monty.planning import Planner
from durable_monty.records import CallRow, HeardBeat, NextAttempt, Settlement
from durable_monty.store import Store, failure_text

log = logging.getLogger(__name__)

MAX_TAKEN = 2000
"""Outcomes judged at a time."""
_POLL_WAIT_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """An outcome or a sign of life, and the executor that told of it."""

    executor: str
    outcome: Outcome | Heartbeat


@dataclass(slots=True)
class Verdict:
    """What outcomes mean.

    Attributes:
        settlements: Outcomes of calls, at most one per call.
        next_attempts: Attempts that failed and are followed by another.
        beats: Signs of life.
        done: Jobs that can be forgotten once these two are durable, with their executors.
    """

    settlements: list[Settlement] = field(default_factory=list)
    next_attempts: list[NextAttempt] = field(default_factory=list)
    beats: list[HeardBeat] = field(default_factory=list)
    done: list[tuple[str, Job]] = field(default_factory=list)


class Collector:
    """Takes outcomes from executors that push and polls those that do not, each in a thread of its own."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        jobs: OpenJobs,
        bell: Bell,
        *,
        signing_key: bytes | None = None,
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_value_bytes = max_value_bytes
        self._store = store
        self._planner = planner
        self._jobs = jobs
        self._bell = bell
        self._signing_key = signing_key
        self._clock = clock
        self._inbox: deque[Arrival] = deque()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def deliver(self, executor: str, outcomes: Sequence[Outcome | Heartbeat]) -> None:
        """Take outcomes and signs of life; from any thread."""
        self._inbox.extend(Arrival(executor, outcome) for outcome in outcomes)
        self._bell.ring()

    def watch(self, executor: LoadedExecutor) -> None:
        """Poll an executor from now on, unless it pushes."""
        if executor.capabilities.pushes:
            return
        thread = threading.Thread(target=self._poll, args=(executor,), name=f"poll-{executor.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def take(self) -> list[Arrival]:
        """What has come, the oldest first."""
        taken: list[Arrival] = []
        while self._inbox and len(taken) < MAX_TAKEN:
            taken.append(self._inbox.popleft())
        return taken

    def put_back(self, arrivals: Sequence[Arrival]) -> None:
        """Return what could not be made durable; it will be taken again first."""
        self._inbox.extendleft(reversed(arrivals))

    @property
    def has_news(self) -> bool:
        """Whether something waits to be taken."""
        return bool(self._inbox)

    def judge(self, arrivals: Sequence[Arrival]) -> Verdict:
        """Decide what each outcome means. Nothing is recorded here."""
        verdict = Verdict()
        seen: set[str] = set()
        for arrival in arrivals:
            if isinstance(arrival.outcome, Heartbeat):
                self._hear(arrival.outcome, verdict)
                continue
            key = arrival.outcome.job_id
            known = self._jobs.get(key)
            verdict.done.append((arrival.executor, known.job if known is not None else Job(key)))
            if key not in seen:
                seen.add(key)
                self._judge(arrival.outcome, verdict)
        return verdict

    def stop(self) -> None:
        """End polling; threads that are inside a plug-in end by themselves."""
        self._stopping.set()

    def _judge(self, outcome: Outcome, verdict: Verdict) -> None:
        try:
            execution_id, call_id, attempt = parse_job_id(outcome.job_id)
        except ValueError as error:
            log.warning("outcome of a job that is not ours: %s", error)
            return
        now = self._clock()
        value, failure = self._read(outcome)
        if failure is None and len(value) > self._max_value_bytes:
            # Counted in characters, of which there are at most as many.
            message = too_large("the result", len(value), self._max_value_bytes)
            failure = Failure("undecodable", "ValueError", message)
        if failure is None:
            settled = Settlement(execution_id, call_id, attempt, CallStatus.COMPLETED, value, now)
            verdict.settlements.append(settled)
            return
        decided = self._decide(outcome.job_id, execution_id, call_id, attempt, failure, now)
        if isinstance(decided, NextAttempt):
            verdict.next_attempts.append(decided)
            return
        status = CallStatus.CANCELLED if decided.kind == "cancelled" else CallStatus.FAILED
        verdict.settlements.append(Settlement(execution_id, call_id, attempt, status, failure_text(decided), now))

    def _hear(self, heartbeat: Heartbeat, verdict: Verdict) -> None:
        try:
            execution_id, call_id, attempt = parse_job_id(heartbeat.job_id)
            job_id, progress = decode_heartbeat(heartbeat.message, self._signing_key)
        except (ValueError, DecodeError, SignatureMismatch) as error:
            log.warning("heartbeat ignored: %s", error, extra={"job_id": heartbeat.job_id})
            return
        if job_id != heartbeat.job_id:
            log.warning("heartbeat ignored: it is of job %.200r", job_id, extra={"job_id": heartbeat.job_id})
            return
        if progress is not None and len(progress) > self._max_value_bytes:
            reason = too_large("its progress", len(progress), self._max_value_bytes)
            log.warning("heartbeat ignored: %s", reason, extra={"job_id": heartbeat.job_id})
            return
        verdict.beats.append(HeardBeat(execution_id, call_id, attempt, self._clock(), progress))

    def _read(self, outcome: Outcome) -> tuple[str, Failure | None]:
        """The value's text, or the failure."""
        if outcome.failure is not None:
            return "", outcome.failure
        assert outcome.reply is not None
        try:
            reply = decode_reply(outcome.reply, self._signing_key)
        except SignatureMismatch as error:
            log.warning("reply refused: its signature is missing or wrong", extra={"job_id": outcome.job_id})
            return "", Failure("refused", "SignatureMismatch", str(error))
        except (DecodeError, UnicodeDecodeError) as error:
            return "", Failure("undecodable", "DecodeError", str(error))
        if reply.failure is not None and reply.job_id in ("", outcome.job_id):
            return "", reply.failure
        if reply.job_id != outcome.job_id:
            message = f"the reply that came for job {outcome.job_id!r} is of job {reply.job_id!r}"
            return "", Failure("undecodable", "DecodeError", message)
        return reply.value_text or "null", None

    def _decide(
        self, key: str, execution_id: str, call_id: int, attempt: int, failure: Failure, now: float
    ) -> NextAttempt | Failure:
        """What follows a failure: another attempt, or the failure that the workflow sees."""
        row = self._row(key, execution_id, call_id)
        if row is None or row.attempt != attempt or row.status.is_terminal:
            return failure
        try:
            workflow = self._store.workflow(self._store.execution(execution_id).workflow)
        except ExecutionNotFound:
            return failure
        return self._planner.decide(execution_id, row, failure, workflow, now)

    def _row(self, key: str, execution_id: str, call_id: int) -> CallRow | None:
        known = self._jobs.get(key)
        return known.due.row if known is not None else self._store.call(execution_id, call_id)

    def _poll(self, executor: LoadedExecutor) -> None:
        """The thread of one executor: slices of its open jobs, again and again."""
        failures = 0
        offset = 0
        while not self._stopping.is_set():
            size = executor.capabilities.max_batch
            offset = offset if offset < self._jobs.count(executor.name) else 0
            slice_ = self._jobs.of(executor.name, offset, size)
            offset += size
            if not slice_:
                self._stopping.wait(0.02)
                continue
            try:
                outcomes = executor.poll(slice_, _POLL_WAIT_SECONDS)
                failures = 0
            except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
                if not self._stopping.is_set():
                    log.warning(
                        "polling failed: %s: %s", type(error).__name__, error, extra={"executor": executor.name}
                    )
                self._stopping.wait(backoff_seconds(failures, _FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS))
                failures += 1
                continue
            if outcomes:
                self.deliver(executor.name, outcomes)
            elif executor.capabilities.poll_interval_seconds:
                self._stopping.wait(executor.capabilities.poll_interval_seconds)

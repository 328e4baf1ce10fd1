"""Handing calls to executors, and telling executors what is over.

What a plug-in raises loses nothing: calls go back to `pending` and are handed over again after a growing delay, and an
executor that keeps failing is left alone for a while without holding up the others.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from durable_monty.codec import Unreadable
from durable_monty.durations import backoff_seconds
from durable_monty.envelope import encode_envelope
from durable_monty.errors import StoreError
from durable_monty.executors import Executors
from durable_monty.expiry import begun
from durable_monty.jobs import OpenJobs, job_id
from durable_monty.limits import UNKNOWN_KEY
from durable_monty.loaded import LoadedExecutor
from durable_monty.models import Accepted, Call, CallStatus, Failure, Job, Outcome, Refused
from durable_monty.records import CallRow, DueCall
from durable_monty.store import Store
from durable_monty.store.vault import UNREADABLE_DELAY_SECONDS
from durable_monty.watching import Watch

log = logging.getLogger(__name__)

T = TypeVar("T")

UNBOUNDED = 100_000
"""Calls handed over at once to an executor that names no bound."""
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 30.0
_MAX_COMPLETE_ATTEMPTS = 5


@dataclass(slots=True)
class _Breaker:
    """Keeps an executor that fails from being asked again too soon."""

    failures: int = 0
    closed_at: float = 0.0

    def failed(self, now: float) -> float:
        """Count a failure; returns when to ask again."""
        self.closed_at = now + backoff_seconds(self.failures, _FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
        self.failures += 1
        return self.closed_at


class Dispatcher:
    """Submits, completes and cancels jobs on behalf of one worker.

    Args:
        deliver: Takes outcomes that are known at once, such as refusals.
        signing_key: Signs envelopes.
        grace_seconds: How long after its time limit an attempt is ended if its executor has not ended it.
        clock: The time, in seconds since the epoch.
        watch: Told of what executors accept; None: nobody is.
    """

    def __init__(
        self,
        store: Store,
        executors: Executors,
        jobs: OpenJobs,
        deliver: Callable[[str, Sequence[Outcome]], None],
        *,
        signing_key: bytes | None = None,
        grace_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
        watch: Watch | None = None,
    ) -> None:
        self._store = store
        self._executors = executors
        self._jobs = jobs
        self._deliver = deliver
        self._signing_key = signing_key
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._watch = watch
        self._breakers: dict[str, _Breaker] = defaultdict(_Breaker)
        self._limited_after: dict[str, str] = {}
        self._odd = False
        self._to_complete: dict[str, dict[str, tuple[Job, int]]] = defaultdict(dict)
        self._owed: deque[Callable[[], None]] = deque()

    def capacity(self) -> dict[str, int]:
        """How many more calls each executor in use takes now."""
        return {executor.name: self._room(executor) for executor in self._executors.loaded}

    def pay(self) -> None:
        """Write what could not be written when it was to be.

        Raises:
            StoreError: The database still does not answer; nothing is forgotten.
        """
        while self._owed:
            self._owed[0]()
            self._owed.popleft()

    def submit(self, calls: Iterable[DueCall]) -> float | None:
        """Hand over calls that are durable as `submitting`.

        What their executors answer is written at once, or by `pay` if the database does not answer.

        Returns:
            When to look at them again: some went back to `pending`, or have a time limit; None: there is no such time.
        """
        readable, unreadable = _readable(calls)
        again: list[float | None] = []
        if unreadable:
            # Another worker may have the key.
            again.append(self._put_back(unreadable, self._clock() + UNREADABLE_DELAY_SECONDS))
        for name, group in _grouped(readable).items():
            executor = self._executors.get(name)
            if executor is None:
                again.append(self._put_back(group, self._breakers[name].failed(self._clock())))
                continue
            again += [self._submit(executor, batch) for batch in _batches(group, executor.capabilities.max_batch)]
        return min((due_at for due_at in again if due_at is not None), default=None)

    def claim(self, worker: str, names: Iterable[str]) -> tuple[list[DueCall], set[str], float | None]:
        """Take pending calls for executors that have room.

        Returns:
            The calls, to be submitted, the executors that may have more, and when a rate lets the next call begin.
        """
        calls: list[DueCall] = []
        more = set()
        times: list[float] = []
        for name in names:
            executor = self._executors.get(name)
            room = self._room(executor) if executor is not None else 0
            if not room:
                more.add(name)
                continue
            # Half the room each, as far as there is a use for it: neither kind waits for the other for ever.
            self._odd = not self._odd
            claimed = self._claim_limited(worker, name, (room + self._odd) // 2, times)
            claimed += self._store.claim_calls(worker, name, self._clock(), room - len(claimed))
            if len(claimed) < room:
                claimed += self._claim_limited(worker, name, room - len(claimed), times)
            calls += claimed
            if len(claimed) == room:
                more.add(name)
        return calls, more, min(times, default=None)

    def _claim_limited(self, worker: str, name: str, room: int, times: list[float]) -> list[DueCall]:
        """Calls that their limits let begin; when a rate lets the next one begin is added to `times`."""
        calls: list[DueCall] = []
        after: str | None = self._limited_after.pop(name, "")
        while after is not None and len(calls) < room:
            claim = self._store.limits.claim(worker, name, self._clock(), room - len(calls), after)
            calls += claim.calls
            if claim.again_at is not None:
                times.append(claim.again_at)
            after = claim.after
        if after:
            # The others come first next time.
            self._limited_after[name] = after
        return calls

    def give_back(self, calls: Sequence[DueCall]) -> None:
        """Make calls `pending` again that will not be finished here, without counting an attempt.

        Raises:
            StoreError: The database does not answer.
        """
        self._put_back(calls, self._clock())
        self.pay()

    def give_back_unknown(self, calls: Iterable[DueCall]) -> None:
        """As `give_back`, for those that the database says are this worker's and that it never handed over.

        A transaction whose answer was lost may have claimed or announced them.
        """
        self.give_back([due for due in calls if self._jobs.get(job_id(due)) is None])

    def resume(self, calls: Iterable[DueCall]) -> None:
        """Take on jobs of a worker that is gone.

        A job that its back end still has is watched; one that may never have arrived is submitted again, if that
        cannot run it twice, and is ambiguous otherwise. Jobs of executors that die with their worker are lost.
        """
        for name, group in _grouped(calls).items():
            executor = self._executors.get(name)
            if executor is None:
                self._put_back(group, self._breakers[name].failed(self._clock()))
                continue
            if not executor.capabilities.survives_restart:
                self._report_lost(name, group)
                continue
            self._jobs.add(name, group, is_taken_over=True)
            unsure = [due for due in group if due.row.status is CallStatus.SUBMITTING]
            if executor.capabilities.caller_ids:
                self.submit(unsure)
            elif unsure:
                self._find(executor, unsure)

    def complete(self, done: Iterable[tuple[str, Job]]) -> None:
        """Tell executors that outcomes are durable; what fails is told again with the next."""
        for name, job in done:
            self._to_complete[name][job.job_id] = (job, 0)
        for name, jobs in list(self._to_complete.items()):
            executor = self._executors.get(name)
            if executor is None:
                jobs.clear()
                continue
            for batch in _batches(list(jobs.values()), executor.capabilities.max_batch):
                self._complete(executor, batch, jobs)
            if not jobs:
                del self._to_complete[name]

    @property
    def has_to_complete(self) -> bool:
        """Whether an executor has to be told again."""
        return bool(self._to_complete)

    def cancel(self, calls: Iterable[DueCall]) -> None:
        """Ask executors to stop jobs whose calls have ended in the database."""
        for name, group in _grouped(calls).items():
            executor = self._executors.get(name)
            if executor is None or not executor.has("cancel"):
                continue
            known = [self._jobs.get(job_id(due)) for due in group]
            jobs = [
                item.job if item is not None else Job(job_id(due), due.row.token)
                for item, due in zip(known, group, strict=True)
            ]
            try:
                executor.cancel(jobs, force=True)
            except Exception as error:
                log.warning("cancelling jobs failed", extra={"executor": name, "jobs": len(jobs)}, exc_info=error)

    def _room(self, executor: LoadedExecutor) -> int:
        if self._breakers[executor.name].closed_at > self._clock():
            return 0
        bound = executor.capabilities.max_in_flight
        return UNBOUNDED if bound is None else max(bound - self._jobs.count(executor.name), 0)

    def _submit(self, executor: LoadedExecutor, batch: Sequence[DueCall]) -> float | None:
        breaker = self._breakers[executor.name]
        # Remembered before they are submitted: an outcome may come before `submit` returns. Not polled until then: an
        # executor that is asked about a job which has not arrived would say that it is lost.
        self._jobs.add(executor.name, batch, is_submitting=True)
        contexts = self._watch.trace_contexts(batch, self._clock()) if self._watch is not None else {}
        made = [(due, self._call(executor, due, contexts.get(job_id(due)))) for due in batch]
        fitting = [(due, call) for due, call in made if self._fits(executor, due, call)]
        sendable = [due for due, _ in fitting]
        ends_at = self._arm(executor, sendable)
        try:
            answers = executor.submit([call for _, call in fitting]) if fitting else []
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            due_at = breaker.failed(self._clock())
            log.warning(
                "submitting calls failed, they stay pending: %s: %s",
                type(error).__name__,
                error,
                extra={"executor": executor.name, "calls": len(sendable)},
            )
            return self._put_back(sendable, due_at)
        self._jobs.set_submitted(job_id(due) for due in sendable)
        breaker.failures = 0
        again_at = self._take_answers(executor, sendable, answers)
        return min((at for at in (ends_at, again_at) if at is not None), default=None)

    def _take_answers(
        self, executor: LoadedExecutor, batch: Sequence[DueCall], answers: Sequence[Accepted | Refused]
    ) -> float | None:
        waiting = {job_id(due): due for due in batch}
        tokens: dict[tuple[str, int, int], str] = {}
        accepted = []
        again: dict[float, list[DueCall]] = defaultdict(list)
        for answer in answers:
            due = waiting.pop(answer.job_id, None)
            if due is None:
                log.warning("executor answered for a job it was not given", extra={"job_id": answer.job_id})
            elif isinstance(answer, Accepted):
                accepted.append(due)
                token = answer.token
                if token is None and executor.capabilities.pushes and executor.capabilities.survives_restart:
                    # Nobody can be asked about it later: that it was accepted must be known after a restart.
                    token = ""
                if token is not None:
                    self._jobs.set_token(answer.job_id, token)
                    tokens[due.execution_id, due.row.call_id, due.row.attempt] = token
            elif answer.retry_after_seconds is None:
                failure = Failure("refused", "Refused", answer.reason)
                self._deliver(executor.name, [Outcome(answer.job_id, failure=failure)])
            else:
                again[self._clock() + answer.retry_after_seconds].append(due)
        if waiting:
            log.warning(
                "executor did not answer for every call", extra={"executor": executor.name, "calls": len(waiting)}
            )
            again[self._breakers[executor.name].failed(self._clock())] += waiting.values()
        if tokens:
            self._owe(lambda: self._store.store_tokens(tokens))
        if self._watch is not None:
            self._watch.submitted(accepted, self._clock())
        return min((self._put_back(group, due_at) or due_at for due_at, group in again.items()), default=None)

    def _arm(self, executor: LoadedExecutor, batch: Sequence[DueCall]) -> float | None:
        """Start the time limits of calls whose executor cannot tell when they begin; returns the first one's end."""
        limited = [due for due in batch if due.row.timeout_seconds is not None]
        if executor.capabilities.heartbeats or not limited:
            return None
        at = self._clock() + executor.capabilities.start_delay_seconds
        times = [(due, begun(due.row, at, self._grace_seconds)) for due in limited]
        self._owe(lambda: self._store.times.arm(times))
        return min((item.look_at for _, item in times if item.look_at is not None), default=None)

    def _fits(self, executor: LoadedExecutor, due: DueCall, call: Call) -> bool:
        """Whether the executor can run the call at all; one that it cannot is refused."""
        reason = _unfit(executor, due.row, len(call.envelope))
        if reason is None:
            return True
        self._deliver(executor.name, [Outcome(call.job_id, failure=Failure("refused", *reason))])
        return False

    def _call(self, executor: LoadedExecutor, due: DueCall, trace_context: str | None) -> Call:
        row = due.row
        key = job_id(due)
        has_times = row.timeout_seconds is not None or bool((row.policy or {}).get("heartbeat_seconds"))
        envelope = encode_envelope(
            key,
            row.function,
            row.arguments,
            self._signing_key,
            progress=row.progress,
            is_watched=has_times and executor.capabilities.heartbeats,
            trace_context=trace_context,
        )
        return Call(
            key,
            due.execution_id,
            row.call_id,
            row.attempt,
            row.function,
            row.arguments,
            envelope,
            row.timeout_seconds,
            row.queue,
            row.priority,
            row.resources or {},
        )

    def _put_back(self, calls: Sequence[DueCall], due_at: float) -> float | None:
        if not calls:
            return None
        self._jobs.remove(job_id(due) for due in calls)
        keys = [(due.execution_id, due.row.call_id, due.row.attempt) for due in calls]
        self._owe(lambda: self._store.put_back(keys, due_at))
        return due_at

    def _owe(self, write: Callable[[], None]) -> None:
        """Write now or later: what an executor has done or refused cannot be undone, and others wait behind it."""
        self._owed.append(write)
        with contextlib.suppress(StoreError):
            self.pay()

    def _find(self, executor: LoadedExecutor, calls: Sequence[DueCall]) -> None:
        """Ask about jobs that may never have arrived, where submitting them again could run them twice."""
        jobs = [Job(job_id(due), due.row.token) for due in calls]
        try:
            found = executor.find(jobs)
        except Exception as error:
            log.warning("finding jobs failed", extra={"executor": executor.name}, exc_info=error)
            found = {}
        absent = [due for due in calls if found.get(job_id(due)) == "absent"]
        unknown = [due for due in calls if found.get(job_id(due), "unknown") == "unknown"]
        self.submit(absent)
        failure = Failure(
            "ambiguous",
            "Ambiguous",
            "the worker that was about to start it, or had just started it, is gone, and its executor cannot tell "
            "which; declare the function idempotent=True if it may run twice",
        )
        self._deliver(executor.name, [Outcome(job_id(due), failure=failure) for due in unknown])

    def _report_lost(self, executor: str, calls: Iterable[DueCall]) -> None:
        failure = Failure("lost", "Lost", "the worker that ran it, or was about to run it, is gone")
        self._deliver(executor, [Outcome(job_id(due), failure=failure) for due in calls])

    def _complete(
        self, executor: LoadedExecutor, batch: Sequence[tuple[Job, int]], waiting: dict[str, tuple[Job, int]]
    ) -> None:
        try:
            executor.complete([job for job, _ in batch])
        except Exception as error:
            log.warning("completing jobs failed", extra={"executor": executor.name, "jobs": len(batch)}, exc_info=error)
            for job, attempt in batch:
                if attempt + 1 >= _MAX_COMPLETE_ATTEMPTS:
                    del waiting[job.job_id]
                else:
                    waiting[job.job_id] = (job, attempt + 1)
            return
        for job, _ in batch:
            waiting.pop(job.job_id, None)


def _unfit(executor: LoadedExecutor, row: CallRow, envelope_bytes: int) -> tuple[str, str] | None:
    """Why the executor cannot run the call: a type and a message."""
    if row.limit_key is not None and row.limit_key.startswith(UNKNOWN_KEY):
        return "NoLimitKey", row.limit_key.removeprefix(UNKNOWN_KEY)
    if (row.policy or {}).get("heartbeat_seconds") is not None and not executor.capabilities.heartbeats:
        return "NoHeartbeats", (
            f"{row.function!r} has heartbeat_seconds, and executor {executor.name!r} carries no heartbeats; choose another "
            "executor for it, or give it timeout_seconds instead"
        )
    limit = executor.capabilities.max_payload_bytes
    if limit is None or envelope_bytes <= limit:
        return None
    return "PayloadTooLarge", (
        f"its envelope, with the arguments, is {envelope_bytes} bytes, executor {executor.name!r} carries at most {limit}; "
        "pass a reference to the data instead"
    )


def _readable(calls: Iterable[DueCall]) -> tuple[list[DueCall], list[DueCall]]:
    """Calls that can be handed over, and those that are encrypted with a key which is not known here."""
    readable: list[DueCall] = []
    unreadable: list[DueCall] = []
    for due in calls:
        hidden = [text for text in (due.row.arguments, due.row.progress) if isinstance(text, Unreadable)]
        (unreadable if hidden else readable).append(due)
        if hidden:
            log.warning("call cannot be read, it stays pending: %s", hidden[0].reason, extra={"job_id": job_id(due)})
    return readable, unreadable


def _grouped(calls: Iterable[DueCall]) -> dict[str, list[DueCall]]:
    groups: dict[str, list[DueCall]] = defaultdict(list)
    for due in calls:
        groups[due.row.executor or ""].append(due)
    return groups


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))

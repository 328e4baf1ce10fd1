"""The executor: takes calls, runs them in this process or in children of it, tells of their outcomes."""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from durable_monty import remote
from durable_monty.hookspecs import ExecutorContext, hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Failure, Finding, Heartbeat, Job, Outcome, Refused
from durable_monty_local.backlog import Backlog
from durable_monty_local.deadlines import Deadlines
from durable_monty_local.failures import timed_out
from durable_monty_local.lanes import Lane, Lanes

if TYPE_CHECKING:
    from durable_monty_local.loop import LoopThread
    from durable_monty_local.processes import Child


class LocalSettings(BaseModel):
    """Table `[executors.local]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["thread", "process", "inline"] = Field("thread", description="Where plain functions run.")
    workers: int | None = Field(
        None,
        ge=1,
        description="Threads or processes; default: processors + 4 threads (at most 32), or one process each.",
    )


class Executor:
    """Runs calls in the worker."""

    Settings = LocalSettings
    interface_version = 1
    capabilities = Capabilities(cancel=True, pushes=True, max_in_flight=10_000, heartbeats=True, isolation="thread")

    def __init__(self, settings: LocalSettings) -> None:
        self.settings = settings
        if settings.mode == "inline":
            self.capabilities = dataclasses.replace(type(self).capabilities, cancel=False)
        self._context: ExecutorContext | None = None
        self._undelivered: queue.SimpleQueue[Outcome | Heartbeat | None] = queue.SimpleQueue()
        # Jobs without an outcome; an outcome of one that is not here comes too late.
        self._open: set[str] = set()
        # Jobs that this process has taken and that are not completed; any other is lost.
        self._known: set[str] = set()
        # Jobs that a lane runs now; those in threads cannot be stopped.
        self._begun: set[str] = set()
        self._children: dict[str, Child] = {}
        self._lock = threading.Lock()
        self._is_async: dict[str, bool] = {}
        self._accepted = 0
        self._backlog = Backlog()
        self._lanes = Lanes(self._make_lane, self._size)
        self._deadlines = Deadlines(lambda call: self.report(Outcome(call.job_id, failure=timed_out(call))))
        self._loop: LoopThread | None = None

    @hookimpl
    def start(self, context: ExecutorContext) -> None:
        """Tell outcomes to the worker from now on, instead of keeping them for `poll`."""
        self._context = context

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Start calls; in mode `inline`, run them."""
        asynchronous = [call for call in calls if self._runs_on_loop(call)]
        with self._lock:
            self._open.update(call.job_id for call in calls)
            self._known.update(call.job_id for call in calls)
            self._accepted += len(calls)
        if asynchronous:
            self._started_loop().put(asynchronous)
        for call in calls:
            if self._runs_on_loop(call):
                continue
            if self.settings.mode == "inline":
                self.run_here(call)
            else:
                self._lanes.put(call)
        return [Accepted(call.job_id) for call in calls]

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome | Heartbeat]:
        """Outcomes that nobody was told of, and the loss of jobs of a process that is gone."""
        with self._lock:
            unknown = [job.job_id for job in jobs if job.job_id not in self._known]
        outcomes = self._drain()
        lost = Failure("lost", "Lost", "this process does not run it; the process that did is gone")
        outcomes += [Outcome(job_id, failure=lost) for job_id in unknown]
        if not outcomes and wait_seconds > 0:
            try:
                first = self._undelivered.get(timeout=wait_seconds)
            except queue.Empty:
                return []
            outcomes = [*([first] if first is not None else ()), *self._drain()]
        return outcomes

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None:
        """Let further calls begin."""
        with self._lock:
            self._known.difference_update(job.job_id for job in jobs)
        self._backlog.remove(job.job_id for job in jobs)

    @hookimpl
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """Drop what is queued; end what runs on the event loop or in a process. A running thread goes on.

        What goes on has no outcome any more, and its transaction, if it has one, will be rolled back. Only a job that is
        committing that transaction is not stopped.
        """
        job_ids = [job.job_id for job in jobs]
        with self._lock:
            # One that nobody knows will never start; one that has begun, or ended, is not stopped, unless its process is.
            waiting = self._open - self._begun
            answers = {job_id: job_id in waiting or job_id not in self._known for job_id in job_ids}
            self._open.difference_update(job_ids)
            # Under the lock: a moment later the process may be at work on another call.
            for job_id in job_ids if force else ():
                if job_id in self._children:
                    self._children[job_id].interrupt()
                    answers[job_id] = True
        if self._loop is not None:
            self._loop.cancel(job_ids)
        return answers

    @hookimpl
    def stop(self, grace_seconds: float) -> None:
        """Let running functions finish for a while; then leave them."""
        ends_at = time.monotonic() + grace_seconds
        while self._open and time.monotonic() < ends_at:
            time.sleep(min(0.01, grace_seconds))
        self._context = None
        self._undelivered.put(None)  # wakes a poll that waits
        self._backlog.clear()
        self._lanes.close()
        if self._loop is not None:
            self._loop.close()
            self._loop = None
        self._lanes = Lanes(self._make_lane, self._size)

    @hookimpl
    def check(self) -> list[Finding]:
        """What it is set to."""
        where = {"thread": "threads", "process": "processes", "inline": "the worker's own loop"}[self.settings.mode]
        size = "" if self.settings.mode == "inline" else f"{self._size} "
        return [
            Finding("info", f"runs functions in {size}{where} of the worker, `async def` functions on an event loop")
        ]

    @hookimpl
    def stats(self) -> dict[str, int | float]:
        """Calls accepted so far, and calls without an outcome."""
        return {"accepted": self._accepted, "open": len(self._open)}

    @property
    def _size(self) -> int:
        processors = os.cpu_count() or 1
        default = processors if self.settings.mode == "process" else min(32, processors + 4)
        return self.settings.workers or default

    def _runs_on_loop(self, call: Call) -> bool:
        known = self._is_async.get(call.function_name)
        if known is None:
            known = self._is_async[call.function_name] = remote.is_async(call.function_name)
        return known

    def _started_loop(self) -> LoopThread:
        if self._loop is None:
            from durable_monty_local.loop import LoopThread

            self._loop = LoopThread(self)
        return self._loop

    def _make_lane(self) -> Lane:
        return ProcessLane(self) if self.settings.mode == "process" else ThreadLane(self)

    def may_begin(self, call: Call) -> bool:
        """Wait until the worker has kept up; then whether anybody still wants the outcome of this call."""
        self._backlog.wait()
        with self._lock:
            is_wanted = call.job_id in self._open
            if is_wanted:
                self._begun.add(call.job_id)
            return is_wanted

    def has_ended(self, call: Call) -> None:
        """A lane is through with a call."""
        with self._lock:
            self._begun.discard(call.job_id)

    def watch(self, call: Call) -> None:
        """Report a timeout when the call's time is over."""
        self._deadlines.add(call)

    def run_here(self, call: Call) -> None:
        """Run a call in this thread and report its outcome."""
        transaction = self.transaction(call)
        reply = remote.run(call.envelope, self.beat_of(call), transaction)
        self.has_ended(call)
        if transaction is None or not transaction.is_settled:
            self.report(Outcome(call.job_id, reply=reply))

    def transaction(self, call: Call) -> GuardedTransaction | None:
        """What `current_call().connection` is of; None where there is no database in reach."""
        make = self._context.transaction if self._context is not None else None
        return GuardedTransaction(make(call.job_id), self, call.job_id) if make is not None else None

    def beat_of(self, call: Call) -> Callable[[bytes], None]:
        """What takes the signs of life of this call."""
        return lambda message: self._beat(Heartbeat(call.job_id, message))

    def _beat(self, heartbeat: Heartbeat) -> None:
        if heartbeat.job_id not in self._open:
            return
        if self._context is not None:
            self._context.deliver([heartbeat])
        else:
            self._undelivered.put(heartbeat)

    def begin_settling(self, job_id: str) -> bool:
        """Whether anybody still wants the outcome of this job; from now on nobody else ends it."""
        with self._lock:
            if job_id not in self._open:
                return False
            self._open.discard(job_id)
            return True

    def end_settling(self, job_id: str, *, is_settled: bool) -> None:
        """The outcome is durable, or this job still needs one."""
        if not is_settled:
            with self._lock:
                self._open.add(job_id)

    def set_child(self, call: Call, child: Child | None) -> None:
        """Remember which process runs a call, so that it can be ended."""
        with self._lock:
            if child is None:
                self._children.pop(call.job_id, None)
            else:
                self._children[call.job_id] = child

    def report(self, outcome: Outcome) -> None:
        """Tell of an outcome; the first of a job counts."""
        with self._lock:
            if outcome.job_id not in self._open:
                return
            self._open.discard(outcome.job_id)
        if self._context is not None:
            self._backlog.add(outcome.job_id)
            self._context.deliver([outcome])
        else:
            self._undelivered.put(outcome)

    def _drain(self) -> list[Outcome | Heartbeat]:
        outcomes: list[Outcome | Heartbeat] = []
        while True:
            try:
                outcome = self._undelivered.get_nowait()
            except queue.Empty:
                return outcomes
            if outcome is not None:
                outcomes.append(outcome)


class GuardedTransaction:
    """The transaction of a job that only one of two may end: the function that has returned, or a timeout."""

    def __init__(self, inner: remote.Transaction, executor: Executor, job_id: str) -> None:
        self._inner = inner
        self._executor = executor
        self._job_id = job_id
        self._is_open = False
        self.is_settled = False

    def connect(self) -> Any:
        """See `durable_monty.remote.Transaction`."""
        connection = self._inner.connect()
        self._is_open = True
        return connection

    def settle(self, value_text: str) -> bool:
        """See `durable_monty.remote.Transaction`."""
        if not self._is_open:
            return False
        if not self._executor.begin_settling(self._job_id):
            self._inner.abandon()
            return False
        try:
            self.is_settled = self._inner.settle(value_text)
        finally:
            self._executor.end_settling(self._job_id, is_settled=self.is_settled)
        return self.is_settled

    def abandon(self) -> None:
        """See `durable_monty.remote.Transaction`."""
        self._inner.abandon()


class LocalExecutor(Executor):
    """The local executor for scripts: `LocalExecutor()`, `LocalExecutor(mode="process", workers=2)`.

    The keyword arguments are the fields of `LocalSettings`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(LocalSettings(**settings))


class ThreadLane:
    """A thread that runs calls itself."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def run(self, call: Call) -> None:
        """Run one call."""
        if self._executor.may_begin(call):
            self._executor.watch(call)
            self._executor.run_here(call)

    def close(self) -> None:
        """Nothing is held."""


class ProcessLane:
    """A thread that has calls run by a process of its own."""

    def __init__(self, executor: Executor) -> None:
        from durable_monty_local.processes import Child, settings_of_this_process

        self._executor = executor
        self._child: Child = Child(*settings_of_this_process())

    def run(self, call: Call) -> None:
        """Run one call."""
        from durable_monty_local.processes import ChildDied, ChildTimedOut

        if not self._executor.may_begin(call):
            return
        try:
            self._executor.set_child(call, self._child)
            reply = self._child.run(call.envelope, call.timeout_seconds, self._executor.beat_of(call))
            outcome = Outcome(call.job_id, reply=reply)
        except ChildTimedOut:
            outcome = Outcome(call.job_id, failure=timed_out(call))
        except ChildDied as error:
            outcome = Outcome(call.job_id, failure=Failure("lost", "ProcessDied", str(error)))
        finally:
            self._executor.set_child(call, None)
            self._executor.has_ended(call)
        self._executor.report(outcome)

    def close(self) -> None:
        """End the process."""
        self._child.kill()

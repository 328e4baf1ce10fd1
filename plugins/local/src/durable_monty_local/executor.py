"""The executor: takes calls, runs them in this process or in children of it, tells of their outcomes."""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from durable_monty import remote
from durable_monty.hookspecs import ExecutorContext, hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Failure, Finding, Job, Outcome, Refused
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
    capabilities = Capabilities(cancel=True, pushes=True, max_in_flight=10_000, isolation="thread")

    def __init__(self, settings: LocalSettings) -> None:
        self.settings = settings
        if settings.mode == "inline":
            self.capabilities = dataclasses.replace(type(self).capabilities, cancel=False)
        self._context: ExecutorContext | None = None
        self._undelivered: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        # Jobs without an outcome; an outcome of one that is not here comes too late.
        self._open: set[str] = set()
        # Jobs that this process has taken and that are not completed; any other is lost.
        self._known: set[str] = set()
        # Jobs that a lane runs now; they cannot be stopped.
        self._begun: set[str] = set()
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
                self._run_here(call)
            else:
                self._lanes.put(call)
        return [Accepted(call.job_id) for call in calls]

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome]:
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
        """Drop what is queued; cancel what runs on the event loop. A running thread goes on, its outcome is dropped."""
        job_ids = [job.job_id for job in jobs]
        with self._lock:
            # One that nobody knows will never start; one that has begun, or ended, is not stopped.
            waiting = self._open - self._begun
            answers = {job_id: job_id in waiting or job_id not in self._known for job_id in job_ids}
            self._open.difference_update(job_ids)
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

            self._loop = LoopThread(self.report)
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

    def _run_here(self, call: Call) -> None:
        self.report(Outcome(call.job_id, reply=remote.run(call.envelope)))

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

    def _drain(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while True:
            try:
                outcome = self._undelivered.get_nowait()
            except queue.Empty:
                return outcomes
            if outcome is not None:
                outcomes.append(outcome)


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
            reply = remote.run(call.envelope)
            self._executor.has_ended(call)
            self._executor.report(Outcome(call.job_id, reply=reply))

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
            outcome = Outcome(call.job_id, reply=self._child.run(call.envelope, call.timeout_seconds))
        except ChildTimedOut:
            outcome = Outcome(call.job_id, failure=timed_out(call))
        except ChildDied as error:
            outcome = Outcome(call.job_id, failure=Failure("lost", "ProcessDied", str(error)))
        self._executor.has_ended(call)
        self._executor.report(outcome)

    def close(self) -> None:
        """End the process."""
        self._child.kill()

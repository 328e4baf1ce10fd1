"""One worker's loop: what there is to do, in order, again and again.

Each pass takes the outcomes that have come, makes them durable together with the turns they allow, hands over the calls
that these turns announced, and tells executors what is over. Now and then, and whenever somebody rings, it looks at the
database for what others have left there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from durable_monty.chores import Cleaner
from durable_monty.collector import Arrival, Collector, Verdict
from durable_monty.dispatcher import Dispatcher
from durable_monty.durations import backoff_seconds
from durable_monty.engine import Advanced
from durable_monty.errors import StoreError
from durable_monty.executors import Executors
from durable_monty.expiry import Expiry
from durable_monty.firing import Firer
from durable_monty.jobs import OpenJobs, job_id
from durable_monty.models import CallStatus, Outcome
from durable_monty.observers import LoadedObserver, Observers
from durable_monty.observerspecs import WorkerInfo
from durable_monty.records import DueCall
from durable_monty.runtime import Runtime
from durable_monty.watching import Watch

log = logging.getLogger(__name__)

# Between two looks at whether another process has written to SQLite: short at first, because news tend to follow news.
_FIRST_STEP_SECONDS = 0.005
_LAST_STEP_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_CLOSE_CHILDREN_SECONDS = 5.0


class Loop:
    """The parts that only a worker has, and the order in which it uses them.

    Args:
        executor: The default executor as an object; None: as the configuration says.
        default_name: The default executor's name; it is what `executor` stands for.
        poll_interval_seconds: Longest time between two looks at the database.
        on_step: Called with a name after each transaction and each hook; for tests that stop the process there.
        observers: Told of everything that becomes durable here.
    """

    def __init__(
        self,
        runtime: Runtime,
        executor: Any | None,
        default_name: str,
        poll_interval_seconds: float,
        on_step: Callable[[str], None] = lambda name: None,
        observers: Sequence[LoadedObserver] = (),
    ) -> None:
        self._runtime = runtime
        self._poll_interval_seconds = poll_interval_seconds
        self._on_step = on_step
        self.jobs = OpenJobs(lambda: runtime.lease.worker)
        key = runtime.config.signing_key
        self._collector = Collector(
            runtime.store,
            runtime.planner,
            self.jobs,
            runtime.bell,
            signing_key=key,
            max_value_bytes=runtime.interpreter.limits.max_value_bytes,
            clock=runtime.clock,
        )
        self._executors = Executors(
            runtime.config.plugin_of,
            self._collector.deliver,
            self._collector.watch,
            is_signed=key is not None,
            transaction=runtime.store.transactions(runtime.want_look, runtime.clock).make,
        )
        self._observers = Observers(observers)
        self._watch = Watch(runtime.store, self._observers, self.jobs) if observers else None
        grace_seconds = runtime.config.worker.timeout_grace_seconds
        self._expiry = Expiry(runtime.store, self.jobs, grace_seconds, runtime.clock)
        # Calls whose time is over, to be cancelled at their executors once that is durable.
        self._expired: dict[str, DueCall] = {}
        self._dispatcher = Dispatcher(
            runtime.store,
            self._executors,
            self.jobs,
            self._collector.deliver,
            signing_key=key,
            grace_seconds=grace_seconds,
            clock=runtime.clock,
            watch=self._watch,
        )
        self._firer = Firer(runtime.store)
        self._cleaner = Cleaner(runtime.store, runtime.config.retention)
        self._look_at = 0.0
        self._looks_seen = runtime.looks_wanted
        self._rings_seen = runtime.bell.rings
        self._backlog: set[str] = set()
        self._close_children_at = 0.0
        self._failures = 0
        # Whether a transaction may have happened whose answer was lost.
        self._is_unsure = False
        # A default executor that cannot be had is an error at once, not a warning at the first call.
        if executor is None:
            self._executors.load(default_name)
        else:
            self._executors.use(default_name, executor)
        self._changes = runtime.store.watch(runtime.want_look)
        self.checkpoints = 0
        if self._watch is not None:
            runtime.engine.watch = self._watch
            self._observers.start(WorkerInfo(runtime.lease.worker, self._open_jobs, lambda: self._observers.dropped))

    def tick(self) -> bool:
        """One pass; returns whether there may be more to do at once.

        `checkpoints` grows whenever something happened that may have ended an execution or shown that one has ended.
        """
        self._rings_seen = self._runtime.bell.rings
        arrivals: list[Arrival] = []
        try:
            self._dispatcher.pay()
            self._runtime.lease.renew()
            if self._is_unsure:
                self._dispatcher.give_back_unknown(self._runtime.store.jobs_of(self._runtime.lease.worker))
                self._is_unsure = False
            taken_over = self._runtime.lease.take_over()
            if taken_over:
                log.info("took over jobs of a worker that is gone", extra={"jobs": len(taken_over)})
                self._dispatcher.resume(taken_over)
            arrivals = self._collector.take()
            if arrivals:
                self._record(self._collector.judge(arrivals))
                arrivals = []
            self._write_heartbeats()
            is_busy = self._look() if self._is_look_due() else False
            is_busy = self._take_backlog() or is_busy
            if self._dispatcher.has_to_complete:
                self._dispatcher.complete(())
        except StoreError as error:
            self._collector.put_back(arrivals)
            self._pause(error)
            return False
        if self._failures:
            log.warning("the database answers again")
            self._failures = 0
        return is_busy or self._collector.has_news

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Wait until there may be something to do, at most `timeout_seconds`."""
        now = self._runtime.clock()
        # A lease that cannot be renewed stays due; a database that does not answer is left alone for a while.
        until = self._look_at
        if not self._failures:
            until = min(until, self._runtime.lease.renew_at, self._expiry.next_write_at or until)
        if timeout_seconds is not None:
            until = min(until, now + timeout_seconds)
        step = _FIRST_STEP_SECONDS if self._changes is not None and self._changes.is_polled else until - now
        while (left := until - self._runtime.clock()) > 0:
            if self._runtime.bell.wait(self._rings_seen, min(step, left)):
                return
            if self._changes is not None and self._changes.is_polled and self._has_changed():
                return
            step = min(step * 1.5, _LAST_STEP_SECONDS)

    @property
    def look_at(self) -> float:
        """When it looks at the database next, if nobody rings before."""
        return self._look_at

    @property
    def has_local_jobs(self) -> bool:
        """Whether jobs are open that live in this process."""
        return any(
            self.jobs.count(executor.name) and not executor.capabilities.survives_restart
            for executor in self._executors.loaded
        )

    def close(self, grace_seconds: float) -> None:
        """End in an orderly way: what runs in this process may finish for a while, what is remote goes on."""
        local = {executor.name for executor in self._executors.loaded if not executor.capabilities.survives_restart}
        self._collector.stop()
        self._executors.stop(grace_seconds)
        try:
            arrivals = self._collector.take()
            while arrivals:
                self._record(self._collector.judge(arrivals), submits=False)
                arrivals = self._collector.take()
            # What runs in this process is going to end with it: the same attempts, for anybody.
            self._dispatcher.give_back([job.due for job in self.jobs.all() if job.executor in local])
            self._runtime.engine.release_all()
            self._runtime.lease.end()
        except StoreError as error:
            # Everything that was not recorded will be found by whoever takes over after the lease.
            log.warning("ending without a word to the database: %s", error)
            self._runtime.engine.forget_all()
        finally:
            if self._changes is not None:
                self._changes.close()
            if self._watch is not None:
                self._runtime.engine.watch = None
                self._observers.stop()

    def _open_jobs(self) -> dict[str, int]:
        return {executor.name: self.jobs.count(executor.name) for executor in self._executors.loaded}

    def _record(self, verdict: Verdict, *, submits: bool = True) -> None:
        """Make outcomes durable, with the turns that they allow; then tell the executors."""
        self._expiry.hear(verdict.beats)
        self._write_heartbeats([job.job_id for _, job in verdict.done])
        if verdict.next_attempts:
            self._runtime.engine.reattempt(verdict.next_attempts)
            self._on_step("attempts recorded")
            self._look_no_later_than(min(item.due_at for item in verdict.next_attempts))
        capacity = self._dispatcher.capacity() if submits else {}
        for name, job in verdict.done:
            if name in capacity and self.jobs.get(job.job_id) is not None:
                capacity[name] += 1
        if verdict.settlements:
            advanced = self._runtime.engine.advance(verdict.settlements, capacity)
            self._on_step("turns recorded")
        else:
            advanced = Advanced()
        expired = [self._expired.pop(job.job_id, None) for _, job in verdict.done]
        self._dispatcher.cancel(due for due in expired if due is not None)
        self._forget(job.job_id for _, job in verdict.done)
        self._follow(advanced)
        self._dispatcher.complete(verdict.done)
        self._on_step("jobs completed")

    def _write_heartbeats(self, ending: Sequence[str] = ()) -> None:
        look_at = self._expiry.write(ending)
        if look_at is not None:
            self._look_no_later_than(look_at)
            self._on_step("heartbeats recorded")

    def _expire(self) -> None:
        """Let calls fail whose time is over."""
        for due, failure in self._expiry.overdue():
            if due.row.status is not CallStatus.PENDING:
                self._expired[job_id(due)] = due
            self._collector.deliver(due.row.executor or "", [Outcome(job_id(due), failure=failure)])

    def _follow(self, advanced: Advanced) -> None:
        """Do outside what has just become durable."""
        self._forget(advanced.settled)
        if advanced.cancelled:
            self._dispatcher.cancel(advanced.cancelled)
            self._forget(job_id(due) for due in advanced.cancelled)
        if advanced.to_submit:
            self._submit(advanced.to_submit)
        self._backlog |= advanced.pending
        if advanced.wake_at is not None:
            self._look_no_later_than(advanced.wake_at)
        if advanced.is_busy:
            self._look_no_later_than(0.0)
        if advanced.ended:
            self.checkpoints += 1
            if self._firer.is_queueing:
                self._look_no_later_than(0.0)

    def _forget(self, keys: Iterable[str]) -> None:
        """These jobs are over; calls that waited for them because of a limit may begin."""
        keys = list(keys)
        ended = [job for key in keys if (job := self.jobs.get(key)) is not None]
        self._backlog |= {job.executor for job in ended if job.due.row.limit_key is not None}
        self.jobs.remove(keys)

    def _submit(self, calls: Sequence[DueCall]) -> None:
        due_at = self._dispatcher.submit(calls)
        self._on_step("calls submitted")
        if due_at is not None:
            self._look_no_later_than(due_at)

    def _look(self) -> bool:
        """See what is due in the database; returns whether there is more."""
        runtime = self._runtime
        self._looks_seen = runtime.looks_wanted
        now = runtime.clock()
        # Before the turns, which may ask for an earlier look.
        self._look_at = now + self._poll_interval_seconds
        found = runtime.store.survey(runtime.lease.worker, now)
        is_busy = False
        if found.has_schedule or self._firer.is_queueing:
            is_busy = bool(self._firer.fire(now))
        if is_busy:
            self._on_step("schedules fired")
        if self._cleaner.clean(now):
            self._on_step("ended executions deleted")
        if found.has_execution:
            advanced = runtime.engine.advance_due(self._dispatcher.capacity())
            self._on_step("due turns recorded")
            self._follow(advanced)
            is_busy = is_busy or advanced.is_busy
        if found.has_overdue:
            self._expire()
        if found.has_pending:
            self._backlog |= runtime.store.pending_executors(now)
        if self._close_children_at <= now:
            # Those of this worker's own turns were seen to at once; what a killed worker left behind is found here.
            runtime.engine.close_children()
            self._close_children_at = now + _CLOSE_CHILDREN_SECONDS
        if is_busy:
            self._look_no_later_than(now)
        if found.next_at is not None:
            self._look_no_later_than(found.next_at)
        self.checkpoints += 1
        return is_busy

    def _take_backlog(self) -> bool:
        """Submit pending calls as far as their executors have room; returns whether that may go on at once."""
        if not self._backlog:
            return False
        calls, self._backlog, again_at = self._dispatcher.claim(self._runtime.lease.worker, self._backlog)
        if again_at is not None:
            self._look_no_later_than(again_at)
        if calls:
            self._on_step("calls claimed")
            self._submit(calls)
        return False

    def _is_look_due(self) -> bool:
        return self._runtime.looks_wanted != self._looks_seen or self._look_at <= self._runtime.clock()

    def _look_no_later_than(self, time: float) -> None:
        self._look_at = min(self._look_at, time)

    def _has_changed(self) -> bool:
        try:
            is_changed = self._changes is not None and self._changes.changed()
        except StoreError:
            is_changed = True
        if is_changed:
            self._look_at = 0.0
        return is_changed

    def _pause(self, error: StoreError) -> None:
        """Leave a database alone that does not answer; nothing is lost meanwhile."""
        if not self._failures:
            log.warning("the database does not answer, trying again: %s", error)
        pause = backoff_seconds(self._failures, _FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
        self._failures += 1
        self._is_unsure = True
        self._look_at = self._runtime.clock() + pause
        self._rings_seen = self._runtime.bell.rings

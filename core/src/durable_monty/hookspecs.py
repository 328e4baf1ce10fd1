"""What the core asks of an executor plug-in.

An executor plug-in is a class with methods marked `@hookimpl`, a pydantic model `Settings` beside it, and two class
attributes: `capabilities`, and `interface_version`, the version of this file that it was written for. Its distribution
names it in the entry-point group `durable_monty.executors`; the core calls `Executor(settings)` once per table of the
configuration that names the plug-in. Making one connects to nothing: that is for `start`.

A distribution may also name click commands in the entry-point group `durable_monty.commands`; the entry point's name is the
command's, and it is imported when that command is run.

All hooks are synchronous. An implementation takes only the arguments it uses. `poll` is called from a thread of its
own, because it may block; every other hook is called from the worker's main thread. No hook is called twice at the
same time for one executor, except that `poll` may run while another hook does.

What may change: a later core may have further optional hooks, and further arguments of hooks that are here. Neither
concerns a plug-in that does not name them, and neither raises `INTERFACE_VERSION`. That number is raised only when a
plug-in that was right becomes wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pluggy

from durable_monty.models import Accepted, Call, Finding, Heartbeat, Job, Outcome, Refused
from durable_monty.remote import Transaction

PROJECT = "durable_monty"
ENTRY_POINT_GROUP = "durable_monty.executors"
REQUIRED_HOOKS = ("submit", "poll", "complete")
OPTIONAL_HOOKS = ("start", "stop", "check", "cancel", "find", "stats")
HOOKS = (*REQUIRED_HOOKS, *OPTIONAL_HOOKS)

INTERFACE_VERSION = 1
"""The version of the hooks in this file; a plug-in that names none was written for 1."""
OLDEST_INTERFACE_VERSION = 1
"""The oldest that this core still calls rightly."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class ExecutorContext:
    """What an executor may use of the worker it runs in.

    Attributes:
        executor_name: The name of this executor in the configuration.
        deliver: Hands outcomes to the worker at once, from any thread; for executors that hear of outcomes by
            themselves instead of being polled. Handing one over twice is harmless.
        logger: Where the executor logs; no argument or result values, they may be secrets.
        is_signed: Whether envelopes carry an HMAC, so that the remote side needs the key.
        transaction: For executors that run functions in the worker's own process: makes what
            `durable_monty.remote.run` takes as `transaction`, for a job id; None where the database is in memory.
    """

    executor_name: str
    deliver: Callable[[Sequence[Outcome | Heartbeat]], None]
    logger: logging.Logger
    is_signed: bool = False
    transaction: Callable[[str], Transaction] | None = None


class ExecutorSpec:
    """The hook specifications; every hook addresses exactly one executor."""

    @hookspec(firstresult=True)
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Start each call and return at once, without waiting for any of them.

        Called by: the dispatcher, in the worker's main thread, with 1 to `max_batch` calls, when they are due and the
            executor has room (`max_in_flight`).
        Called again: with the same `job_id`, if the worker died, or this hook raised, before the answer was known.
            Do not run such a call twice if the back end can tell; declare `caller_ids` if it can. Without it, what
            became of the call is asked of `find`. An executor that finds out by itself that a call may or may not
            have been started answers `Accepted` and delivers a `Failure` of kind `ambiguous`.
        Return: one answer per call, in any order. `Accepted` with a token if more than the job id is needed to find
            the work again from another process. `Refused` with `retry_after_seconds` to be asked again then, without
            it to fail the call with kind `refused`. A call without an answer stays pending, as if this had raised.
        Raise: anything; each call of the batch stays pending and is submitted again after 0.2, 0.4, 0.8 ... at most
            30 seconds, no attempt is counted, and no other executor is held up.
        Durable by then: the calls as `submitting`, their arguments, and the snapshot that announced them. Tokens
            become durable right after.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome | Heartbeat]:
        """Tell what is new about open jobs.

        Called by: the collector, in a thread of this executor's own, again and again while jobs are open, with 1 to
            `max_batch` of them; successive calls walk through all open jobs. Not about a job whose `submit` has not
            returned, and not at all where `pushes` is declared.
            After a call without news comes a pause of `poll_interval_seconds`.
        Called again: for a job whose outcome was returned, until that outcome is durable; and after a crash by
            another process, which has nothing but `Job`. The first outcome of a job counts.
        Return: outcomes, in any order, and heartbeats where `heartbeats` is declared. Silence about a job means no news. Jobs that were not asked about may be
            reported too. A job that the back end has never heard of, or has forgotten, is a `Failure` of kind `lost`.
            May block up to `wait_seconds` on a push channel, and must return soon after `stop` was called.
        Raise: anything; it counts as no news about any of the jobs, and the next poll comes after 0.2, 0.4 ... at
            most 10 seconds. Raise, rather than calling jobs lost, when the back end does not answer.
        Durable by then: the jobs and their tokens. What is returned here is not, until `complete`: the back end keeps
            it.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def complete(self, jobs: Sequence[Job]) -> None:
        """Forget these jobs: their outcomes are durable on our side. Acknowledge, delete, free.

        Called by: the dispatcher, in the worker's main thread, with 1 to `max_batch` jobs, after their outcomes were
            committed (or were found to be late and were ignored).
        Called again: possibly, also for jobs that are long forgotten, in any order and by another process; must be
            idempotent.
        Return: nothing.
        Raise: anything; it is logged and the same jobs are completed again with the next, five times at most. The
            outcome never changes.
        Durable by then: the outcomes.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def start(self, context: ExecutorContext) -> None:
        """Get ready: open connections, start threads. Optional.

        Called by: the worker, in its main thread, before any other hook but `check`, when the first call for this
            executor is due.
        Called again: on the same object, if it raised.
        Return: nothing.
        Raise: anything; the executor is started again after 0.2, 0.4 ... at most 30 seconds, and its calls stay
            pending. A back end that is away is better left to `submit` and `poll` to find out.
        Durable by then: the calls that wait for this executor.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def stop(self, grace_seconds: float) -> None:
        """Let go: stop threads, close connections; leave remote jobs running. Optional.

        Called by: the worker, in its main thread, when it ends; no hook but a `poll` that is still waiting runs
            meanwhile. Functions that run in this process may finish within `grace_seconds`.
        Called again: no.
        Return: nothing.
        Raise: anything; it is logged.
        Durable by then: every outcome that was told and taken; open jobs are polled by the next worker.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def check(self) -> list[Finding]:
        """Say whether calls would work: reachable, credentials, queue, remote version. Optional.

        Called by: `durable-monty executors check`, in a process of its own and without `start`, possibly on a machine
            that runs no worker.
        Called again: as often as somebody asks; must change nothing.
        Return: findings; an unreachable back end is a finding of level `error` with a remedy, not an exception.
        Raise: anything; it becomes a finding of level `error`.
        Durable by then: nothing; there may be no database.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """Stop these jobs if that is possible; nobody waits for their outcomes any more. Optional.

        Called by: the dispatcher, in the worker's main thread. `force` asks to stop what is already running, not only
            what is queued.
        Called again: possibly, with the same jobs, and with jobs that have ended or were never known.
        Return: by job id, True if it is stopped or will never start. False and silence mean that it may go on.
        Raise: anything; it is logged and not asked again. The calls stay cancelled.
        Durable by then: that the calls are `cancelled`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def find(self, jobs: Sequence[Job]) -> dict[str, Literal["known", "absent", "unknown"]]:
        """Say what the back end knows about jobs whose submission may not have happened. Optional.

        Called by: the dispatcher, in the worker's main thread, when it takes over the calls of a worker that died
            between `submitting` and the answer of `submit`, unless `caller_ids` is declared, or `survives_restart` is
            not: then the call is submitted again, or is lost. The jobs have no tokens.
        Called again: possibly, if that worker dies too.
        Return: by job id. `known`: it is there, or was: it is polled. `absent`: it never arrived: it is submitted
            again. `unknown`, or silence, or no such hook: cannot tell; the call fails with kind `ambiguous`, except
            that a function declared `idempotent=True` is tried again.
        Raise: anything; it counts as `unknown` for all of them.
        Durable by then: the calls as `submitting`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def stats(self) -> dict[str, int | float]:
        """Figures for people: jobs accepted, open, failed, what the back end tells. Optional.

        Called by: whoever shows figures, from the worker's main thread; must be quick.
        Called again: at any time.
        Return: numbers by name.
        Raise: anything; it is logged.
        Durable by then: nothing that these figures depend on.
        """
        raise NotImplementedError

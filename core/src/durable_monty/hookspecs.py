"""What the core asks of an executor plug-in.

An executor plug-in is a class with methods marked `@hookimpl`, a pydantic model `Settings` beside it, and one class
attribute `capabilities`. Its distribution names it in the entry-point group `durable_monty.executors`; the core calls
`Executor(settings)` once per table of the configuration that names the plug-in.

A distribution may also name click commands in the entry-point group `durable_monty.commands`; the entry point's name is the
command's, and it is imported when that command is run.

All hooks are synchronous. An implementation takes only the arguments it uses. `poll` is called from a thread of its
own, because it may block; every other hook is called from the worker's main thread. No hook is called twice at the
same time for one executor, except that `poll` may run while another hook does.
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

        Called: by the dispatcher, in the worker's main thread, with 1 to `max_batch` calls that are durable as
            `submitting`.
        Called again: with the same `job_id`, if the worker died, or this hook raised, before the answer was known.
            Do not run such a call twice if the back end can tell; declare `caller_ids` if it can. An executor that
            finds out by itself that a call may or may not have been started answers `Accepted` and delivers a
            `Failure` of kind `ambiguous`.
        Return: one answer per call, in any order. `Accepted` with a token if more than the job id is needed to find
            the work again. `Refused` with `retry_after_seconds` to be asked again, without it to fail the call.
        Raise: anything; each call of the batch stays pending and is submitted again with a growing delay, and no
            other executor is held up.
        Durable by then: the calls, their arguments, and the snapshot that announced them.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome | Heartbeat]:
        """Tell what is new about open jobs.

        Called: again and again while jobs are open, in a thread of its own, with at most `max_batch` of them;
            successive calls walk through all open jobs.
        Called again: a job whose outcome was returned may be asked about until that outcome is durable, and after a
            crash open jobs are asked about by another process; the first outcome counts.
        Return: outcomes, and heartbeats where `heartbeats` is declared. Silence about a job means no news. Jobs that were not asked about may be reported too.
            A job that the back end has never heard of, or has forgotten, is a `Failure` of kind `lost`.
            May block up to `wait_seconds` on a push channel, and must return soon after `stop` was called.
        Raise: anything; it counts as no news, and the next poll comes after a growing delay.
        Durable by then: nothing that is returned here, until `complete`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def complete(self, jobs: Sequence[Job]) -> None:
        """Forget these jobs: their outcomes are durable on our side. Acknowledge, delete, free.

        Called: by the dispatcher, in the worker's main thread, after the outcomes of `jobs` were committed (or
            were found to be late and were ignored).
        Called again: possibly, also for jobs that are long forgotten and in any order; must be idempotent.
        Return: nothing.
        Raise: anything; it is logged and the same jobs are completed again later. The outcome never changes.
        Durable by then: the outcomes.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def start(self, context: ExecutorContext) -> None:
        """Get ready: open connections, start threads. Optional.

        Called: once, before any other hook but `check`, in the worker's main thread.
        Raise: anything; the executor is started again with a growing delay, and its calls stay pending.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def stop(self, grace_seconds: float) -> None:
        """Let go: stop threads, close connections; leave remote jobs running. Optional.

        Called: once, when the worker ends, after the last other hook. Functions that run in this process may finish
            within `grace_seconds`.
        Raise: anything; it is logged.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def check(self) -> list[Finding]:
        """Say whether calls would work: reachable, credentials, queue, remote version. Optional.

        Called: by `durable-monty executors check`, without `start`, possibly on a machine that runs no worker.
        Return: findings; an unreachable back end is a finding of level `error`, not an exception.
        Raise: anything; it becomes a finding of level `error`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """Stop these jobs if that is possible; nobody waits for their outcomes any more. Optional.

        Called: by the dispatcher, after the calls became `cancelled` in the database. `force` asks to stop what is
            already running, not only what is queued.
        Called again: possibly, with the same jobs.
        Return: by job id, whether it is stopped or will never start. False and silence mean that it may go on.
        Raise: anything; it is logged. The calls stay cancelled.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def find(self, jobs: Sequence[Job]) -> dict[str, Literal["known", "absent", "unknown"]]:
        """Say what the back end knows about jobs whose submission may not have happened. Optional.

        Called: after a crash between `submitting` and the answer of `submit`, unless `caller_ids` or not
            `survives_restart` is declared: then the call is submitted again, or is lost.
        Return: by job id. `known`: it is there, or was: poll it. `absent`: it never arrived: submit it.
            `unknown`, also where this hook is absent: cannot tell. Then the call fails with kind `ambiguous`, except
            that a function declared `idempotent=True` is tried again.
        Raise: anything; it counts as `unknown`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def stats(self) -> dict[str, int | float]:
        """Figures for people: jobs accepted, open, failed, what the back end tells. Optional.

        Called: at any time from the worker's main thread; must be quick.
        Raise: anything; it is logged.
        """
        raise NotImplementedError

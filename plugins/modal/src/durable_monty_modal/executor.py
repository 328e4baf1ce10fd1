"""The executor: what the hooks do, in terms of Modal's function calls."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import modal

from durable_monty.hookspecs import ExecutorContext, hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Failure, Finding, Job, Outcome, Refused
from durable_monty_modal.background import Background, Stopped
from durable_monty_modal.checks import check
from durable_monty_modal.connection import CONNECT_SECONDS, Connection, Unreachable
from durable_monty_modal.failures import AWAY, NOT_ADMITTED, failure_of, is_not_ready, may_have_started, outcome_of
from durable_monty_modal.settings import RESULTS_LIVE_SECONDS, ModalSettings
from durable_monty_modal.sizes import name_of, size_of

log = logging.getLogger(__name__)

T = TypeVar("T")

_SPAWN_SECONDS = 4.0
"""How long a worker's main thread waits for calls to be started; the rest of them go on being started without it."""
_CANCEL_SECONDS = 2.0
_POLL_SECONDS = 30.0
_RETRY_SECONDS = 1.0


class Executor:
    """Runs calls by the functions of a deployed Modal app."""

    Settings = ModalSettings
    capabilities = Capabilities(
        cancel=True,
        survives_restart=True,
        keeps_results_seconds=RESULTS_LIVE_SECONDS,
        max_batch=200,
        max_in_flight=1000,
        poll_interval_seconds=0.5,
        isolation="machine",
    )

    def __init__(self, settings: ModalSettings) -> None:
        self.settings = settings
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            max_in_flight=settings.max_in_flight,
            poll_interval_seconds=settings.poll_interval_seconds,
        )
        self._log = log
        self._is_started = False
        self._background = Background("modal")
        self._connection: Connection | None = None
        # What follows is touched on the background loop only, except that `complete` removes what is done.
        self._starting: dict[str, asyncio.Task[str]] = {}
        self._late_tokens: dict[str, str] = {}
        self._cancelled: set[str] = set()
        self._news: list[Outcome] = []
        self._accepted = 0

    @hookimpl
    def start(self, context: ExecutorContext) -> None:
        """Nothing is connected before the first call."""
        self._log = context.logger
        self._is_started = True

    @hookimpl
    def stop(self, grace_seconds: float) -> None:
        """Let go, also of a server that does not answer; calls at Modal go on."""
        connection, self._connection = self._connection, None
        self._background.stop(_close(connection))
        self._starting.clear()
        self._is_started = False

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Spawn the calls side by side.

        A call that could not be started within seconds is accepted without a token and goes on being started: were the
        worker killed now, it would be ambiguous.
        """
        return self._run(self._submit(calls))

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome]:
        """Ask for the results of all these jobs, side by side."""
        try:
            return self._run(self._poll(jobs))
        except Stopped:
            return []

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None:
        """Forget what is known here; Modal forgets by itself."""
        for job in jobs:
            self._late_tokens.pop(job.job_id, None)
            self._cancelled.discard(job.job_id)

    @hookimpl
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """Cancel calls, queued or running. A running function sees an exception; its container goes on."""
        return self._run(self._cancel(jobs))

    @hookimpl
    def check(self) -> list[Finding]:
        """Token, server, app, function, and what a container has."""
        try:
            return self._run(check(self._connected(), self.settings))
        finally:
            if not self._is_started:
                self.stop(0)

    @hookimpl
    def stats(self) -> dict[str, int | float]:
        """Calls accepted by this process, and those of them that are still being started."""
        return {"accepted": self._accepted, "starting": len(self._starting)}

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._background.run(coroutine)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self.settings)
        return self._connection

    async def _submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        connection = self._connected()
        try:
            await connection.greet(CONNECT_SECONDS)
        except NOT_ADMITTED as error:
            raise PermissionError(_not_admitted(error, self.settings)) from error
        for call in calls:
            if call.job_id not in self._starting:
                spawning = connection.spawn(self._function_name(call), call.envelope)
                self._starting[call.job_id] = asyncio.create_task(spawning)
        tasks = [self._starting[call.job_id] for call in calls]
        await asyncio.wait(tasks, timeout=_SPAWN_SECONDS)
        answers = [self._answer(call, task) for call, task in zip(calls, tasks, strict=True)]
        self._accepted += sum(isinstance(answer, Accepted) for answer in answers)
        for reason in {answer.reason for answer in answers if isinstance(answer, Refused)}:
            self._log.warning("Modal did not take calls: %s", reason)
        return answers

    def _answer(self, call: Call, task: asyncio.Task[str]) -> Accepted | Refused:
        job_id = call.job_id
        if not task.done():
            task.add_done_callback(lambda task: self._came_late(job_id, task))
            return Accepted(job_id)
        del self._starting[job_id]
        if (error := task.exception()) is None:
            return Accepted(job_id, task.result())
        if may_have_started(error):
            self._news.append(_unsure(job_id, error))
            return Accepted(job_id)
        if isinstance(error, modal.exception.NotFoundError):
            return Refused(job_id, self._not_deployed(call, error), self.settings.missing_retry_seconds)
        is_for_now = isinstance(error, (*AWAY, *NOT_ADMITTED))
        return Refused(job_id, f"{type(error).__name__}: {error}", _RETRY_SECONDS if is_for_now else None)

    def _came_late(self, job_id: str, task: asyncio.Task[str]) -> None:
        """A call was started, or not, after its `submit` had to return."""
        self._starting.pop(job_id, None)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._news.append(_unsure(job_id, error) if may_have_started(error) else _not_started(job_id, error))
            return
        token = task.result()
        if job_id in self._cancelled:
            self._starting[job_id] = asyncio.create_task(self._cancel_late(job_id, token))
        else:
            self._late_tokens[job_id] = token

    async def _cancel_late(self, job_id: str, token: str) -> str:
        try:
            await self._connected().cancel(token)
        finally:
            self._starting.pop(job_id, None)
        return token

    async def _poll(self, jobs: Sequence[Job]) -> list[Outcome]:
        tokens = {job.job_id: job.token or self._late_tokens.get(job.job_id) for job in jobs}
        tasks = [asyncio.create_task(self._ask(job_id, token)) for job_id, token in tokens.items() if token]
        error = await _first_error(tasks)
        outcomes, self._news = self._news, []
        outcomes += [outcome for task in tasks if (outcome := _value(task)) is not None]
        if error is not None and not outcomes:
            raise _explained(error, self._connected(), self.settings)
        return outcomes

    async def _ask(self, job_id: str, token: str) -> Outcome | None:
        """The job's outcome, if there is one yet."""
        try:
            return outcome_of(job_id, await self._connected().get(token))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if is_not_ready(error):
                return None
            failure = failure_of(error, is_cancelled=job_id in self._cancelled)
            if failure is None:
                raise
            return Outcome(job_id, failure=failure)

    async def _cancel(self, jobs: Sequence[Job]) -> dict[str, bool]:
        self._cancelled.update(job.job_id for job in jobs)
        tokens = {job.job_id: job.token or self._late_tokens.get(job.job_id) for job in jobs}
        tasks = {
            job_id: asyncio.create_task(self._connected().cancel(token)) for job_id, token in tokens.items() if token
        }
        if tasks:
            # Those that take longer go on.
            await asyncio.wait(tasks.values(), timeout=_CANCEL_SECONDS)
        failed = [task.exception() for task in tasks.values() if task.done() and task.exception() is not None]
        if failed:
            self._log.warning("Modal did not cancel %d calls: %s", len(failed), failed[0])
        return {
            job_id: job_id in tasks and tasks[job_id].done() and tasks[job_id].exception() is None for job_id in tokens
        }

    def _function_name(self, call: Call) -> str:
        return name_of(self.settings.function, size_of(call.options, call.timeout_seconds))

    def _not_deployed(self, call: Call, error: BaseException) -> str:
        size = size_of(call.options, call.timeout_seconds)
        needs = f" with {size}" if size else ""
        return (
            f"calls of {call.function_name!r} wait: the Modal app {self.settings.app!r} has no function "
            f"{self._function_name(call)!r}{needs} ({error}); run `modal deploy` on the module that builds the app"
        )


class ModalExecutor(Executor):
    """The Modal executor for scripts: `ModalExecutor("my-app")`.

    Args:
        app: The deployed app.
        function: As in `ModalSettings`.
        settings: The other fields of `ModalSettings`.
    """

    def __init__(self, app: str = "durable-monty", function: str = "run", **settings: Any) -> None:
        super().__init__(ModalSettings(app=app, function=function, **settings))


async def _close(connection: Connection | None) -> None:
    if connection is not None:
        await connection.close()


async def _first_error(tasks: Sequence[asyncio.Task[Outcome | None]]) -> BaseException | None:
    """Wait for all of them; not for the others once one has failed, because they would only fail more slowly."""
    if not tasks:
        return None
    try:
        done, waiting = await asyncio.wait(tasks, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
    if waiting:
        await asyncio.wait(waiting)
    return next((error for task in done if (error := task.exception()) is not None), None)


def _value(task: asyncio.Task[Outcome | None]) -> Outcome | None:
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None


def _unsure(job_id: str, error: BaseException) -> Outcome:
    message = (
        f"Modal may or may not have started it: {type(error).__name__}: {error}; declare the function idempotent=True "
        "if it may run twice"
    )
    return Outcome(job_id, failure=Failure("ambiguous", type(error).__name__, message))


def _not_started(job_id: str, error: BaseException) -> Outcome:
    message = f"Modal did not start it: {type(error).__name__}: {error}"
    return Outcome(job_id, failure=Failure("unavailable", type(error).__name__, message))


def _explained(error: BaseException, connection: Connection, settings: ModalSettings) -> Exception:
    if isinstance(error, NOT_ADMITTED):
        return PermissionError(_not_admitted(error, settings))
    return Unreachable(f"Modal at {connection.where} does not answer: {type(error).__name__}: {error}")


def _not_admitted(error: BaseException, settings: ModalSettings) -> str:
    return (
        f"Modal does not accept the token in {settings.token_id_env} and {settings.token_secret_env} ({error}); "
        "make one with `modal token new`"
    )

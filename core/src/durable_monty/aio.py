"""The service for programs with an event loop, such as web applications."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from durable_monty.config import Config
from durable_monty.service import OrchestratorService
from durable_monty.store import Store

P = ParamSpec("P")
R = TypeVar("R")


class _InThread(Generic[P, R]):
    """A method of `OrchestratorService` as a coroutine function with the same parameters and the same result."""

    def __init__(self, method: Callable[Concatenate[OrchestratorService, P], R]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: AsyncOrchestratorService, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __get__(
        self, instance: AsyncOrchestratorService | None, owner: type
    ) -> Self | Callable[P, Coroutine[Any, Any, R]]:
        if instance is None:
            return self

        @functools.wraps(self._method)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return await instance.in_thread(self._method, instance.service, *args, **kwargs)

        return call


class AsyncOrchestratorService:
    """`OrchestratorService` with awaitable methods; safe to share between all tasks of one event loop.

    Every method does what its namesake does, in one of a few threads; `wait` holds none. A task that is cancelled stops
    waiting for its method, which is still finished.

    Args:
        service: The service to use, the store that `init_db` returned, or the URL of a database.
        configuration: As for `OrchestratorService`; not with a service.
        threads: Most methods that work at the same time; others wait for their turn.

    Raises:
        ConfigError: As `OrchestratorService`.
        StoreUnreachable: As `OrchestratorService`.
        ValueError: `threads` is less than 1.
    """

    def __init__(
        self, service: OrchestratorService | Store | str, configuration: Config | None = None, *, threads: int = 8
    ) -> None:
        if threads < 1:
            raise ValueError(f"opening the service: threads is {threads!r}; it must be at least 1")
        if not isinstance(service, OrchestratorService):
            service = OrchestratorService(service, configuration)
        self.service = service
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="durable-monty-service")

    start_execution = _InThread(OrchestratorService.start_execution)
    start_executions = _InThread(OrchestratorService.start_executions)
    process_execution = _InThread(OrchestratorService.process_execution)
    poll = _InThread(OrchestratorService.poll)
    get_execution = _InThread(OrchestratorService.get_execution)
    get_result = _InThread(OrchestratorService.get_result)
    list_executions = _InThread(OrchestratorService.list_executions)
    diagnose = _InThread(OrchestratorService.diagnose)
    get_pending_calls = _InThread(OrchestratorService.get_pending_calls)
    complete_call = _InThread(OrchestratorService.complete_call)
    fail_call = _InThread(OrchestratorService.fail_call)
    cancel = _InThread(OrchestratorService.cancel)
    pause = _InThread(OrchestratorService.pause)
    resume = _InThread(OrchestratorService.resume)
    retry = _InThread(OrchestratorService.retry)
    signal = _InThread(OrchestratorService.signal)
    published = _InThread(OrchestratorService.published)
    read_stream = _InThread(OrchestratorService.read_stream)
    create_schedule = _InThread(OrchestratorService.create_schedule)
    list_schedules = _InThread(OrchestratorService.list_schedules)
    pause_schedule = _InThread(OrchestratorService.pause_schedule)
    resume_schedule = _InThread(OrchestratorService.resume_schedule)
    delete_schedule = _InThread(OrchestratorService.delete_schedule)
    backfill = _InThread(OrchestratorService.backfill)
    delete_ended = _InThread(OrchestratorService.delete_ended)
    count_ended = _InThread(OrchestratorService.count_ended)

    async def wait(self, execution_id: str, timeout_seconds: float | None = None) -> dict[str, Any]:
        """As `OrchestratorService.wait`. Any number of tasks may wait; none holds a thread meanwhile."""
        loop = asyncio.get_running_loop()
        ends_at = None if timeout_seconds is None else loop.time() + timeout_seconds
        while True:
            ended = asyncio.Event()
            with self.service.ends.watching(execution_id, functools.partial(_set, loop, ended)):
                found = await self.get_execution(execution_id)
                if found["status"] not in ("scheduled", "running", "waiting"):
                    return found
                try:
                    async with asyncio.timeout_at(ends_at):
                        await ended.wait()
                except TimeoutError:
                    raise await self.in_thread(self.service.not_ended, execution_id, timeout_seconds) from None

    async def in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function in one of the threads of this service."""
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def close(self) -> None:
        """Close the service, once the methods that are at work have finished."""
        await self.in_thread(self.service.close)
        self._pool.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _set(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Wake a task from another thread, if its loop still runs."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(ended.set)

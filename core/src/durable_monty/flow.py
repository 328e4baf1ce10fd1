"""What workflow code needs beside `asyncio.gather` and `asyncio.sleep`.

In a workflow these names run inside the sandbox and survive a suspension at every step; under plain asyncio (a unit test
that awaits a `@workflow` function) they are the functions of this module, which do the same.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from durable_monty.functions import Retry
from durable_monty.overrides import call_overrides

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

__all__ = ["Retry", "map", "options", "race", "settle", "timeout"]


async def race(*aws: Awaitable[Any]) -> tuple[int, Any]:
    """Wait for the first of several to end.

    Returns:
        Its place among the arguments, from 0, and its value.

    Raises:
        ValueError: There are none.
        Exception: Whatever the first one to end raised; an exception is an end.
    """
    if not aws:
        raise ValueError("race() needs at least one awaitable")
    tasks = [asyncio.ensure_future(aw) for aw in aws]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        index = min(tasks.index(task) for task in done)
        return index, tasks[index].result()
    finally:
        await _stop(tasks)


async def timeout(aw: Awaitable[T], seconds: float) -> T:
    """Wait at most so many seconds.

    Raises:
        TimeoutError: It has not ended by then.
    """
    task = asyncio.ensure_future(aw)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
        if not done:
            raise TimeoutError(f"not done within {seconds} s")
        return task.result()
    finally:
        await _stop([task])


async def settle(*aws: Awaitable[Any]) -> list[Any]:
    """Wait for all of them to end.

    Returns:
        For each its value, or the exception that it raised.
    """
    results = await asyncio.gather(*aws, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
    return results


async def map(fn: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int | None = None) -> list[R]:
    """Await `fn(item)` for every item, at most `limit` at the same time.

    Returns:
        The values in the order of the items.

    Raises:
        ValueError: `limit` is below 1.
        Exception: What the first failing `fn(item)` raised; no further item is begun.
    """
    todo = list(enumerate(items))
    if limit is not None and limit < 1:
        raise ValueError(f"map() limit is {limit}; it must be at least 1")
    results: list[Any] = [None] * len(todo)

    async def lane() -> None:
        while todo:
            index, item = todo.pop(0)
            try:
                results[index] = await fn(item)
            except BaseException:
                todo.clear()
                raise

    lanes = [asyncio.ensure_future(lane()) for _ in range(min(limit or len(todo), len(todo)))]
    try:
        await asyncio.gather(*lanes)
    finally:
        await _stop(lanes)
    return results


def options(
    fn: Callable[P, R],
    *,
    retry: Retry | Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    total_timeout_seconds: float | None = None,
    heartbeat_seconds: float | None = None,
    executor: str | None = None,
    queue: str | None = None,
    priority: int = 0,
    concurrency: int | None = None,
    rate: str | None = None,
    key: str | None = None,
    idempotent: bool = False,
    resources: Mapping[str, Any] | None = None,
) -> Callable[P, R]:
    """A host function with options of its own, for the calls that are made through what this returns.

    `await options(charge, timeout_seconds=5)(card, cents)`. What is given here beats the function's decorator and the
    configuration, `None` included; what is not given stays. Under plain asyncio only `timeout_seconds` has an effect.

    Args:
        fn: A host function.
        key: The key of these calls itself, not a function; other fields are those of `@function`.

    Raises:
        ValueError: A field is out of its range; in a workflow this is raised by the call.
    """
    fields = {name: value for name, value in locals().items() if name != "fn"}
    call_overrides(fields)

    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        value: Any = fn(*args, **kwargs)
        if timeout_seconds is None or not inspect.isawaitable(value):
            return value
        return timeout(value, timeout_seconds)

    return call


async def _stop(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

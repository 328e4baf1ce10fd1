"""What workflow code needs beside `asyncio.gather` and `asyncio.sleep`.

In a workflow these names run inside the sandbox and survive a suspension at every step; under plain asyncio (a unit test
that awaits a `@workflow` function) they are the functions of this module, which do the same within one event loop:
signals wait in a mailbox, published values and streams are kept, children are run.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import itertools
import uuid
import weakref
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from durable_monty.functions import Retry
from durable_monty.overrides import call_overrides

if TYPE_CHECKING:
    from durable_monty.workflows import Workflow

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

__all__ = [
    "Retry",
    "as_completed",
    "child",
    "emit",
    "map",
    "options",
    "publish",
    "race",
    "saga",
    "send_signal",
    "settle",
    "signal",
    "sleep_until",
    "start_child",
    "timeout",
    "uuid4",
]


async def race(*aws: Awaitable[Any]) -> tuple[int, Any]:
    """Wait for the first of several to end; the others are cancelled, with the jobs of their calls.

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
    """Wait at most so many seconds; what has not ended by then is cancelled, with the jobs of its calls.

    Raises:
        TimeoutError: It has not ended by then.
        ValueError: `seconds` is negative.
    """
    if not seconds >= 0:
        raise ValueError(f"timeout() seconds is {seconds!r}; it must be a number of seconds from 0 on")
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
    todo = deque(enumerate(items))
    if limit is not None and limit < 1:
        raise ValueError(f"map() limit is {limit}; it must be at least 1")
    results: list[Any] = [None] * len(todo)

    async def lane() -> None:
        while todo:
            index, item = todo.popleft()
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


def as_completed(aws: Iterable[Awaitable[T]]) -> list[Awaitable[T]]:
    """Take results in the order in which they come.

    All of them are begun when the first is awaited.

    Returns:
        As many awaitables: each gives the value of the next to end, or raises what that one raised.
    """
    items = list(aws)
    begun: list[Any] = []

    async def following() -> T:
        if not begun:
            begun.append(iter(asyncio.as_completed(items)))
        value: T = await next(begun[0])
        return value

    return [following() for _ in items]


async def sleep_until(when: dt.datetime) -> None:
    """Wait until this time; a time that has passed does not wait.

    Raises:
        ValueError: It has no time zone.
    """
    if when.tzinfo is None:
        raise ValueError(f"sleep_until() needs a time with a time zone; {when} has none")
    await asyncio.sleep(max((when - dt.datetime.now(dt.UTC)).total_seconds(), 0))


async def signal(name: str, timeout_seconds: float | None = None, type: Any = None) -> Any:  # noqa: A002
    """Wait for a signal of this name; one that was sent before is taken, in the order of sending.

    Args:
        timeout_seconds: How long to wait; None: for ever.
        type: What the payload must be: a builtin type, or a class whose fields a dictionary gives.

    Returns:
        The payload.

    Raises:
        TimeoutError: None came in time.
        TypeError: One had been sent whose payload is of another type.
    """
    value = await asyncio.wait_for(_room().mail[name].get(), timeout_seconds)
    if type is None or isinstance(value, type) or (type is float and isinstance(value, int)):
        return value
    if isinstance(value, dict):
        return type(**value)
    raise TypeError(f"signal {name!r} has the payload {value!r}; {type.__name__} is wanted")


async def send_signal(execution_id: str, name: str, payload: Any = None) -> None:
    """Send a signal to another execution. Under plain asyncio there is only one mailbox, whatever the id.

    Raises:
        ValueError: There is no such execution, or it has ended.
    """
    _room().mail[name].put_nowait(payload)


def publish(key: str, value: Any) -> None:
    """Let outsiders read a value at any time: `service.published(execution_id, key)`. The last one counts."""
    _room().published[key] = value


def emit(stream: str, value: Any) -> None:
    """Append a value to a stream that outsiders read: `service.read_stream(execution_id, stream, offset)`."""
    _room().streams[stream].append(value)


async def child(
    workflow: Workflow[..., R] | str, inputs: Mapping[str, Any] | None = None, execution_id: str | None = None
) -> R:
    """Run another workflow as an execution of its own, and wait for its result.

    Args:
        workflow: A `@workflow` function, or the name of one that was given to `start_execution(workflows=...)`.
        execution_id: Its id; None: the parent's id and the number of this call.

    Raises:
        ValueError: There is no such workflow, or the id is taken.
        TypeError: An input is missing or not known.
        Exception: What the child raised; `RuntimeError` if it was cancelled.
    """
    result: R = await _callable(workflow)(**(inputs or {}))
    return result


async def start_child(
    workflow: Workflow[..., Any] | str,
    inputs: Mapping[str, Any] | None = None,
    execution_id: str | None = None,
    parent_close: Literal["cancel", "abandon"] = "cancel",
) -> str:
    """Start another workflow as an execution of its own, and go on.

    Args:
        parent_close: What becomes of it when this execution ends: `cancel`, or `abandon`: it goes on.

    Returns:
        Its id.

    Raises:
        ValueError: There is no such workflow, or the id is taken.
        TypeError: An input is missing or not known.
    """
    room = _room()
    id_ = execution_id or f"child-{next(room.numbers)}"
    room.children[id_] = asyncio.ensure_future(_callable(workflow)(**(inputs or {})))
    return id_


class saga:  # noqa: N801 - used like the functions beside it
    """Remembers how to undo what was done.

    s = saga()
    booking = await book(trip)
    s.add(cancel_booking, booking)
    ...
    await s.undo()        # in `except`: undoes in reverse, each once
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., Awaitable[Any]], tuple[Any, ...], dict[str, Any]]] = []

    def add(self, undo: Callable[P, Awaitable[Any]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Remember a step: `await undo(*args, **kwargs)` takes back what was done."""
        self._steps.append((undo, args, kwargs))

    async def undo(self) -> None:
        """Take back every step, the last one first, each once; one that fails does not keep the others.

        Raises:
            Exception: What the first step that failed raised, after all were tried.
        """
        first: Exception | None = None
        while self._steps:
            step, args, kwargs = self._steps.pop()
            try:
                await step(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - a step may raise anything
                first = first or error
        if first is not None:
            raise first


def uuid4() -> str:
    """A random UUID as text; in a workflow it is the same whenever the workflow is rebuilt from its log."""
    return str(uuid.uuid4())


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


@dataclass(slots=True)
class _Room:
    """What helpers share within one event loop, under plain asyncio."""

    mail: defaultdict[str, asyncio.Queue[Any]] = field(default_factory=lambda: defaultdict(asyncio.Queue))
    published: dict[str, Any] = field(default_factory=dict)
    streams: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    children: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)


_rooms: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Room] = weakref.WeakKeyDictionary()


def _room() -> _Room:
    return _rooms.setdefault(asyncio.get_running_loop(), _Room())


def _callable(workflow: Any) -> Callable[..., Awaitable[Any]]:
    if callable(workflow):
        found: Callable[..., Awaitable[Any]] = workflow
        return found
    raise ValueError(f"starting child {workflow!r}: outside the engine a child is a @workflow function, not a name")


async def _stop(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

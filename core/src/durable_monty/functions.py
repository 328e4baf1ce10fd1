"""Host functions: declaring them, finding them by name, and what a running one can ask about itself.

A host function is named by its dotted path, `module.name`. What runs on a remote machine is registered there: decorated
with `@function`, or matched by the allow-list of that machine's configuration. Standard library only.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any, Generic, ParamSpec, overload

from durable_monty.errors import FunctionError, FunctionNotFound, FunctionRefused
from durable_monty.policies import CallPolicy, RetryPolicy, rate_per_second

P = ParamSpec("P")

ALLOW_VARIABLE = "DURABLE_MONTY_FUNCTIONS"
MAX_SECONDS = 100 * 366 * 86400.0
"""No duration is longer than a hundred years."""
MAX_PRIORITY = 1000

workflow_mode: ContextVar[bool] = ContextVar("workflow_mode", default=False)
"""Whether a `@workflow` function is being run as ordinary Python, under asyncio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Run a failed call again: when, how often, after how long.

    With `first_delay_seconds=1, factor=2`, attempts 1, 2, 3 are followed by waits of 1, 2, 4 seconds.

    Attributes:
        attempts: Most attempts, the first included.
        first_delay_seconds: The wait after the first attempt.
        factor: What each wait is multiplied by to get the next.
        max_delay_seconds: No wait is longer.
        jitter: Each wait is varied by up to this part of itself, at random; between 0 and 1.
        on: Exception types or their names, compared by name with the type that was raised and its bases. A timeout
            counts as `TimeoutError`.
        when: A function that gets the `Failure` and has the last word: another attempt follows only if it returns
            something true. It is called in the worker: a function of a module, or its dotted path. One that cannot be
            found or raises counts as no.

    Raises:
        ValueError: A number is out of its range.
    """

    attempts: int = 3
    first_delay_seconds: float = 1.0
    factor: float = 2.0
    max_delay_seconds: float = 60.0
    jitter: float = 0.1
    on: tuple[type[BaseException] | str, ...] = (Exception,)
    when: Callable[[Any], object] | str | None = None

    def __post_init__(self) -> None:
        _require(_is_whole(self.attempts) and self.attempts >= 1, "Retry attempts", self.attempts, "at least 1")
        for name in ("first_delay_seconds", "max_delay_seconds"):
            value = getattr(self, name)
            _require(_is_number(value) and 0 <= value <= MAX_SECONDS, f"Retry {name}", value, "between 0 and 100 years")
        _require(_is_number(self.factor) and self.factor >= 1, "Retry factor", self.factor, "a number of at least 1")
        _require(_is_number(self.jitter) and 0 <= self.jitter <= 1, "Retry jitter", self.jitter, "between 0 and 1")
        is_types = isinstance(self.on, tuple | list) and all(map(_is_exception_type, self.on))
        _require(is_types, "Retry on", self.on, "a tuple of exception types or their names")
        is_predicate = self.when is None or callable(self.when) or _is_path(self.when)
        _require(is_predicate, "Retry when", self.when, "a function that takes a Failure, or its dotted path")

    def to_policy(self) -> RetryPolicy:
        """The same, as it is stored: exception types by name."""
        return RetryPolicy(
            self.attempts,
            self.first_delay_seconds,
            self.factor,
            self.max_delay_seconds,
            self.jitter,
            tuple(kind if isinstance(kind, str) else kind.__name__ for kind in self.on),
            None if self.when is None else stored_name(self.when),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionOptions:
    """What a `@function` says about its calls.

    Attributes:
        retry: When a failed attempt is followed by another; None: never.
        timeout_seconds: How long one attempt may run; None: as long as it likes.
        total_timeout_seconds: How long the call may take in all: attempts, waits between them, waits for a limit.
        heartbeat_seconds: How long an attempt may run without `current_call().heartbeat()`; after that it is taken for
            dead and is followed by another.
        executor: The name of the executor that runs it; None: what the configuration says.
        queue: The queue of that executor; None: its own.
        priority: Larger is sooner, from -1000 to 1000. Among calls that wait for room, each minute of waiting weighs
            as much as 1, so that nothing waits for ever.
        concurrency: Most attempts that run at the same time, over all workers; one count per `key`.
        rate: Most attempts that begin, over all workers: `"50/s"`, `"10/m"`, `"100/h"`, evenly spread; one count per
            `key`.
        key: What `concurrency` and `rate` are counted by: a function that takes the call's arguments, called in the
            worker, or its dotted path; None: all calls of the function share one count.
        blocking: Called without `await` in a workflow; the whole workflow waits meanwhile.
        idempotent: Running it twice does no harm.
        resources: What a machine must have to run it, in the executor's own words.
    """

    retry: Retry | None = None
    timeout_seconds: float | None = None
    total_timeout_seconds: float | None = None
    heartbeat_seconds: float | None = None
    executor: str | None = None
    queue: str | None = None
    priority: int = 0
    concurrency: int | None = None
    rate: str | None = None
    key: Callable[..., Any] | str | None = None
    blocking: bool = False
    idempotent: bool = False
    resources: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("timeout_seconds", "total_timeout_seconds", "heartbeat_seconds"):
            value = getattr(self, name)
            is_duration = value is None or (_is_number(value) and 0 < value <= MAX_SECONDS)
            _require(is_duration, f"@function {name}", value, "more than 0 and at most 100 years")
        for name in ("executor", "queue"):
            value = getattr(self, name)
            _require(value is None or (isinstance(value, str) and value != ""), f"@function {name}", value, "a name")
        is_priority = _is_whole(self.priority) and abs(self.priority) <= MAX_PRIORITY
        _require(
            is_priority, "@function priority", self.priority, f"a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}"
        )
        is_count = self.concurrency is None or (_is_whole(self.concurrency) and self.concurrency >= 1)
        _require(is_count, "@function concurrency", self.concurrency, "a whole number of at least 1")
        if self.rate is not None:
            try:
                rate_per_second(self.rate)
            except ValueError as error:
                raise ValueError(f"@function {error}") from None
        is_key = self.key is None or callable(self.key) or _is_path(self.key)
        _require(is_key, "@function key", self.key, "a function that takes the call's arguments, or its dotted path")
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise ValueError(f"@function retry is {self.retry!r}; write for example retry=Retry(attempts=3)")
        is_mapping = self.resources is None or isinstance(self.resources, Mapping)
        _require(is_mapping, "@function resources", self.resources, "a mapping")

    def to_policy(self) -> CallPolicy:
        """The same, as it is stored with a workflow."""
        return CallPolicy(
            self.executor,
            self.queue,
            self.priority,
            self.timeout_seconds,
            self.retry.to_policy() if self.retry else None,
            self.idempotent,
            dict(self.resources) if self.resources else None,
            self.total_timeout_seconds,
            self.heartbeat_seconds,
            self.concurrency,
            self.rate,
            None if self.key is None else stored_name(self.key),
        )


def stored_name(item: Callable[..., Any] | str) -> str:
    """The name under which a predicate or a key function is stored; one without a path is found by its owner."""
    if isinstance(item, str):
        return normalized(item)
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', type(item).__qualname__)}"


def _is_number(value: object) -> bool:
    # Not `isfinite` for an int: a large one has no float.
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and "." in normalized(value) and all(normalized(value).split("."))


def _is_exception_type(item: object) -> bool:
    return (isinstance(item, type) and issubclass(item, BaseException)) or (isinstance(item, str) and item != "")


def _require(is_met: bool, what: str, found: object, wanted: str) -> None:
    if not is_met:
        raise ValueError(f"{what} is {found!r}; it must be {wanted}")


class Function(Generic[P]):
    """A registered host function; made by `@function`.

    Calling it calls the plain function. While a `@workflow` function runs as ordinary Python (`await order(...)` in a
    unit test) a call gives an awaitable instead, as in the sandbox, except with `blocking=True`.
    """

    __name__: str

    def __init__(self, wrapped: Callable[P, Any], options: FunctionOptions) -> None:
        self.__wrapped__ = wrapped
        self.options = options
        self.path = dotted_path(wrapped)
        functools.update_wrapper(self, wrapped)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the plain function."""
        if not workflow_mode.get() or self.options.blocking or self.is_async:
            return self.__wrapped__(*args, **kwargs)
        return _in_thread(self.__wrapped__, args, kwargs)

    def __repr__(self) -> str:
        return f"<host function {self.path}>"

    @property
    def is_async(self) -> bool:
        """Whether it is declared `async def`."""
        return inspect.iscoroutinefunction(self.__wrapped__)


async def _in_thread(wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    import asyncio

    token = workflow_mode.set(False)
    try:
        return await asyncio.to_thread(wrapped, *args, **kwargs)
    finally:
        workflow_mode.reset(token)


_registered: dict[str, Function[Any]] = {}
_allowed: tuple[str, ...] = ()


@overload
def function(wrapped: Callable[P, Any], /) -> Function[P]: ...


@overload
def function(
    *,
    retry: Retry | None = None,
    timeout_seconds: float | None = None,
    total_timeout_seconds: float | None = None,
    heartbeat_seconds: float | None = None,
    executor: str | None = None,
    queue: str | None = None,
    priority: int = 0,
    concurrency: int | None = None,
    rate: str | None = None,
    key: Callable[..., Any] | str | None = None,
    blocking: bool = False,
    idempotent: bool = False,
    resources: Mapping[str, Any] | None = None,
) -> Callable[[Callable[P, Any]], Function[P]]: ...


def function(wrapped: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a host function: `@function`, or `@function(timeout_seconds=30)`.

    In a workflow it is awaited, whether it is declared `def` or `async def`. The keyword arguments are the fields of
    `FunctionOptions`.

    Raises:
        ValueError: An option is out of its range.
        FunctionError: The function has no name by which another process could find it.
    """
    chosen = FunctionOptions(**options)

    def decorate(wrapped: Callable[..., Any]) -> Function[Any]:
        if isinstance(wrapped, Function):
            raise FunctionError(f"declaring {wrapped.path!r}: it is a @function already; decorate it once")
        return _register(Function(wrapped, chosen))

    return decorate if wrapped is None else decorate(wrapped)


@contextmanager
def replaced(path: str, stand_in: Function[Any]) -> Iterator[None]:
    """Within the block, calls of the function at a dotted path run another one; for tests of workflows."""
    known = _registered.get(path)
    _registered[path] = stand_in
    try:
        yield
    finally:
        if known is None:
            _registered.pop(path, None)
        else:
            _registered[path] = known


def register(wrapped: Callable[..., Any]) -> Function[Any]:
    """Register a function in this process, with default options if it is not decorated.

    Raises:
        FunctionError: It is not a function with a name.
    """
    if isinstance(wrapped, Function):
        return _register(wrapped)
    known = _registered.get(dotted_path(wrapped))
    if known is not None and known.__wrapped__ is wrapped:
        return known
    return _register(Function(wrapped, FunctionOptions()))


def _register(item: Function[Any]) -> Function[Any]:
    _registered[item.path] = item
    return item


def dotted_path(item: Callable[..., Any]) -> str:
    """The path `module.name` of a function.

    Raises:
        FunctionError: It has none: a lambda, a bound method, or an object that is not a function.
    """
    if isinstance(item, Function):
        return item.path
    name = getattr(item, "__qualname__", None)
    if not callable(item) or not isinstance(name, str):
        raise FunctionError(f"registering {item!r}: it is not a function; define one with `def` and pass that")
    if isinstance(item, FunctionType) and not item.__name__.isidentifier():
        raise FunctionError(f"registering {item!r}: a lambda has no name to be called by; define it with `def`")
    if isinstance(item, MethodType) and not isinstance(item.__self__, type):
        raise FunctionError(
            f"registering {item!r}: a method is bound to one object, which no other process has; pass a function"
        )
    return f"{item.__module__ or 'builtins'}.{name}"


def normalized(path: str) -> str:
    """The path in its stored spelling: `module:name` means `module.name`."""
    return path.replace(":", ".")


def set_allowed(patterns: Iterable[str]) -> None:
    """Allow the functions that match these patterns in this process, besides those of `DURABLE_MONTY_FUNCTIONS`."""
    global _allowed
    _allowed = tuple(normalized(pattern) for pattern in patterns)


def allowed_patterns() -> tuple[str, ...]:
    """The allow-list of this process: what was set, and what `DURABLE_MONTY_FUNCTIONS` names."""
    named = os.environ.get(ALLOW_VARIABLE, "").split(",")
    return (*_allowed, *(normalized(pattern.strip()) for pattern in named if pattern.strip()))


def get_function(path: str) -> Callable[..., Any]:
    """The function at a dotted path, registered or not.

    Raises:
        FunctionNotFound: There is no such module or name; the message says which part is missing.
    """
    path = normalized(path)
    known = _registered.get(path)
    return known if known is not None else _import(path)


def execute_function(path: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
    """Call the function at a dotted path and return its value; an `async def` is run to its end.

    Raises:
        FunctionNotFound: There is no such function. Besides this, whatever the function raises.
    """
    value = get_function(path)(*args, **(kwargs or {}))
    return run_to_end(value) if inspect.iscoroutine(value) else value


def run_to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on an event loop of its own."""
    # asyncio costs more than all the rest of a remote machine's imports.
    import asyncio

    return asyncio.run(coroutine)


def resolve(path: str) -> Function[Any]:
    """The registered function at a dotted path; what every executor runs.

    A function that is not registered yet is looked for by importing its module: where an allow-list is set, only if
    the path matches it; else whatever the path names, but then it must be decorated with `@function`.

    Raises:
        FunctionNotFound: There is no such function.
        FunctionRefused: It exists, or may exist, but is neither decorated nor allowed.
    """
    path = normalized(path)
    known = _registered.get(path)
    if known is not None:
        return known
    patterns = allowed_patterns()
    is_allowed = any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
    if patterns and not is_allowed:
        raise FunctionRefused(
            f"running {path!r}: it matches none of the allowed patterns ({', '.join(patterns)}); "
            f"add it to `[functions] allow` or to {ALLOW_VARIABLE} on the machine that runs it"
        )
    found = _import(path)
    # Importing the module registers what it decorates, also under an older name.
    known = _registered.get(path) or (found if isinstance(found, Function) else None)
    if known is not None:
        return known
    if not is_allowed:
        raise FunctionRefused(
            f"running {path!r}: it is not registered; decorate it with @function, or name it in `[functions] allow` "
            f"or {ALLOW_VARIABLE} on the machine that runs it"
        )
    return register(found)


def _import(path: str) -> Callable[..., Any]:
    module_name, _, rest = path.rpartition(".")
    names = [rest]
    while module_name:
        module = _import_module(module_name, path)
        if module is not None:
            return _attribute(module, names, path)
        module_name, _, rest = module_name.rpartition(".")
        names.insert(0, rest)
    raise FunctionNotFound(
        f"looking for the function {path!r}: no module {path.partition('.')[0]!r} can be imported here; is its "
        "package installed, or its folder on PYTHONPATH, on the machine that runs it?"
    )


def _import_module(name: str, path: str) -> Any:
    """The module, or None if there is none of that name."""
    module = sys.modules.get(name)
    if module is not None:
        return module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            return None
        raise FunctionNotFound(
            f"looking for the function {path!r}: importing {name!r} failed: no module named {error.name!r}; install "
            "it on the machine that runs the function"
        ) from error
    except Exception as error:
        raise FunctionNotFound(
            f"looking for the function {path!r}: importing {name!r} failed: {type(error).__name__}: {error}"
        ) from error


def _attribute(module: Any, names: Sequence[str], path: str) -> Callable[..., Any]:
    item = module
    for name in names:
        if not hasattr(item, name):
            raise FunctionNotFound(
                f"looking for the function {path!r}: {module.__name__!r} has no {'.'.join(names)!r}; is it spelt "
                "right, and does the machine that runs it have the newest code?"
            )
        item = getattr(item, name)
    if not callable(item):
        raise FunctionNotFound(f"looking for the function {path!r}: it is {item!r:.100}, which cannot be called")
    found: Callable[..., Any] = item
    return found


@dataclass(frozen=True, slots=True)
class CurrentCall:
    """The call that a host function is running for.

    Attributes:
        attempt: Which try this is; the first is 1.
        idempotency_key: The same for every attempt; hand it to services that accept one.
        progress: What the last heartbeat of the attempt before reported, or None.
        trace_context: Where this attempt belongs in a trace, as the W3C header `traceparent` says it; None: no observer of
            the worker traces it.
    """

    execution_id: str
    call_id: int
    attempt: int
    job_id: str
    progress: Any = None
    _beat: Callable[[Any], None] | None = field(default=None, repr=False, compare=False)
    _connect: Callable[[], Any] | None = field(default=None, repr=False, compare=False)
    trace_context: str | None = None

    @property
    def idempotency_key(self) -> str:
        """`<execution_id>-<call_id>`."""
        return f"{self.execution_id}-{self.call_id}"

    def heartbeat(self, progress: Any = None) -> None:
        """Tell the worker that this attempt is alive, and how far it has come.

        Cheap: a few messages a second go out at most, the last one always. Where the executor carries none, nothing
        happens.

        Args:
            progress: What the next attempt, should this one die, gets as `current_call().progress`, and what `show`
                shows; None: as before.

        Raises:
            EncodeError: The progress cannot be carried.
        """
        if self._beat is not None:
            self._beat(progress)

    @property
    def connection(self) -> Any:
        """A connection to the database of the executions, an SQLAlchemy `Connection` inside a transaction.

        What the function does on it and the outcome of this call become durable together, when the function has
        returned, or not at all: if it raises, or if the attempt comes too late. Do not commit it.

        Raises:
            RuntimeError: The function does not run in the worker's own process, or the database is in memory.
        """
        if self._connect is None:
            raise RuntimeError(
                f"current_call().connection in {self.job_id!r}: the database is not in reach here; run the function on "
                'the local executor, mode "thread" or "inline", or make it idempotent by current_call().idempotency_key'
            )
        return self._connect()


current: ContextVar[CurrentCall | None] = ContextVar("current_call", default=None)


def current_call() -> CurrentCall:
    """The call that the running host function was called for.

    Raises:
        RuntimeError: No host function is running here.
    """
    call = current.get()
    if call is None:
        raise RuntimeError("current_call() was called outside a host function that durable-monty runs")
    return call

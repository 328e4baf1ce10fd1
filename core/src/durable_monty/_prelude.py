"""The helpers of `durable_monty.flow` as the sandbox runs them, and as the check at submit sees them.

The sandbox has `gather` and exceptions, and neither tasks nor futures: a `gather` whose first child to end raises is how
the first of several is found, and the children of a `gather` that has failed go on beside the code after it. Only what
a workflow imports is taken, because every function in a snapshot costs bytes.

Helpers that need the engine call it: `HOSTED` names what it serves (`durable_monty.interpreter.operations`). A workflow
that has races runs every `gather` as `_scoped_gather`, so that the engine can tell which call runs in which race
(`durable_monty.interpreter.scopes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_PLAIN = "from asyncio import gather as _gather, sleep as _sleep"

_SCOPED = """
from asyncio import gather as _tasks, sleep as _sleep
async def _scoped_gather(*aws):
    here = _here(aws)
    async def lane(aw):
        _enter(here)
        return await aw
    return await _tasks(*[aw if str(aw).startswith('<coroutine external_future(') else lane(aw) for aw in aws])
_gather = _scoped_gather
"""

_RACE = """
async def _race(*aws):
    if not aws:
        raise ValueError('race() needs at least one awaitable')
    scope = _open(_here(), aws)
    ended = []
    async def lane(i, aw):
        _enter(scope)
        try:
            ended.append((i, await aw, None))
        except Exception as e:
            ended.append((i, None, e))
        raise RuntimeError('the race is decided')
    try:
        await _tasks(*[lane(i, aw) for i, aw in enumerate(aws)])
    except RuntimeError:
        if not ended:
            raise
    finally:
        _close(scope)
    i, value, error = ended[0]
    if error is not None:
        raise error
    return i, value
race = _race
"""

_TIMEOUT = """
async def timeout(aw, seconds):
    if not isinstance(seconds, (int, float)):
        raise TypeError(f'timeout() seconds is {seconds!r}; it must be a number of seconds')
    if not seconds >= 0:
        raise ValueError(f'timeout() seconds is {seconds!r}; it must be a number of seconds from 0 on')
    async def expire():
        await _sleep(seconds)
        raise TimeoutError(f'not done within {seconds} s')
    return (await _race(aw, expire()))[1]
"""

_SETTLE = """
async def settle(*aws):
    async def end(aw):
        try:
            return await aw
        except Exception as e:
            return e
    return await _gather(*[end(aw) for aw in aws])
"""

_MAP = """
async def map(fn, items, limit=None):
    todo = list(enumerate(items))
    if limit is not None and limit < 1:
        raise ValueError(f'map() limit is {limit}; it must be at least 1')
    out = [None] * len(todo)
    todo.reverse()
    async def lane():
        while todo:
            i, item = todo.pop()
            try:
                out[i] = await fn(item)
            except BaseException:
                todo.clear()
                raise
    await _gather(*[lane() for _ in range(min(limit or len(todo), len(todo)))])
    return out
"""

_AS_COMPLETED = """
from collections import deque as _deque
def as_completed(aws):
    here, box, todo, ended, begun = _here(), _box(), list(aws), _deque(), []
    async def lane(aw):
        _enter(here)
        try:
            ended.append((await aw, None))
        except Exception as e:
            ended.append((None, e))
        _put(box)
    async def halt():
        raise RuntimeError('every lane has begun')
    async def item():
        if not begun:
            begun.append(True)
            at = _here()
            try:
                await _all(*[lane(aw) for aw in todo], halt())
            except RuntimeError:
                pass
            _enter(at)
        while not ended:
            await _next(box)
        value, error = ended.popleft()
        if error is not None:
            raise error
        return value
    return [item() for _ in todo]
"""

_SIGNAL = """
async def signal(name, timeout_seconds=None, type=None):
    value = await _signal(name, timeout_seconds, None if type is None else type.__name__)
    if type is None or isinstance(value, type) or (type is float and isinstance(value, int)):
        return value
    if isinstance(value, dict):
        return type(**value)
    raise TypeError(f'signal {name!r} has the payload {value!r}; {type.__name__} is wanted')
"""

_SAGA = """
class saga:
    def __init__(self):
        self._steps = []
    def add(self, undo, *args, **kwargs):
        self._steps.append((undo, args, kwargs))
    async def undo(self):
        first = None
        while self._steps:
            step, args, kwargs = self._steps.pop()
            try:
                await step(*args, **kwargs)
            except Exception as e:
                first = first or e
        if first is not None:
            raise first
"""

_SLEEP_UNTIL = """
from datetime import datetime as _datetime, timezone as _timezone
async def sleep_until(when):
    if when.tzinfo is None:
        raise ValueError(f'sleep_until() needs a time with a time zone; {when} has none')
    left = (when - _datetime.now(_timezone.utc)).total_seconds()
    if left > 0:
        await _sleep(left)
"""

_UUID4 = """
from random import getrandbits as _getrandbits
def uuid4():
    bits = _getrandbits(128) & ~(0xf000 << 64) & ~(0xc000 << 48) | (0x4000 << 64) | (0x8000 << 48)
    text = f'{bits:032x}'
    return f'{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}'
"""

# A call that carries `_options` is taken apart by `durable_monty.interpreter.session`.
_OPTIONS = """
from functools import partial as _partial
def options(fn, **fields):
    return _partial(fn, _options=fields)
"""

_RETRY = """
def Retry(**fields):
    if 'on' in fields:
        fields['on'] = [kind if isinstance(kind, str) else str(kind)[8:-2] for kind in fields['on']]
    return fields
"""

_SOURCES = {
    "race": _RACE,
    "timeout": _TIMEOUT,
    "settle": _SETTLE,
    "as_completed": _AS_COMPLETED,
    "signal": _SIGNAL,
    "saga": _SAGA,
    "sleep_until": _SLEEP_UNTIL,
    "uuid4": _UUID4,
    "options": _OPTIONS,
    "Retry": _RETRY,
    # It takes a builtin's place, and must not take it from the others: it comes last.
    "map": _MAP,
}
_NEEDS = {"timeout": ("race",)}
_SERVED = ("send_signal", "child", "start_child", "publish", "emit")
"""What the engine serves under the name that the workflow uses."""
HOSTED: Mapping[str, tuple[str, ...]] = {
    "race": ("_here", "_open", "_enter", "_close"),
    "as_completed": ("_here", "_enter", "_box", "_put", "_next"),
    "signal": ("_signal",),
}
"""What the engine serves to helpers."""
SCOPED = frozenset({"race", "timeout"})
"""Helpers with losers: a workflow that uses one has to tell which call runs in which race."""

_STUBS = {
    "race": "async def race(*aws: Awaitable[Any]) -> tuple[int, Any]: ...",
    "timeout": "async def timeout[T](aw: Awaitable[T], seconds: float) -> T: ...",
    "settle": "async def settle(*aws: Awaitable[Any]) -> list[Any]: ...",
    "map": (
        "async def map[T, R](fn: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int | None = None)"
        " -> list[R]: ..."
    ),
    "as_completed": "def as_completed[T](aws: Iterable[Awaitable[T]]) -> list[Awaitable[T]]: ...",
    "signal": "async def signal(name: str, timeout_seconds: float | None = None, type: Any = None) -> Any: ...",
    "send_signal": "async def send_signal(execution_id: str, name: str, payload: Any = None) -> None: ...",
    "child": (
        "async def child(workflow: str, inputs: dict[str, Any] | None = None, execution_id: str | None = None)"
        " -> Any: ..."
    ),
    "start_child": (
        "async def start_child(workflow: str, inputs: dict[str, Any] | None = None, execution_id: str | None = None,"
        " parent_close: Literal['cancel', 'abandon'] = 'cancel') -> str: ..."
    ),
    "publish": "def publish(key: str, value: Any) -> None: ...",
    "emit": "def emit(stream: str, value: Any) -> None: ...",
    "saga": (
        "class saga:\n"
        "    def __init__(self) -> None: ...\n"
        "    def add[**P](self, undo: Callable[P, Awaitable[Any]], *args: P.args, **kwargs: P.kwargs) -> None: ...\n"
        "    async def undo(self) -> None: ..."
    ),
    "sleep_until": "async def sleep_until(when: datetime.datetime) -> None: ...",
    "uuid4": "def uuid4() -> str: ...",
    "options": (
        "def options[**P, R](fn: Callable[P, R], *, retry: Retry | dict[str, Any] | None = None,"
        " timeout_seconds: float | None = None, total_timeout_seconds: float | None = None,"
        " heartbeat_seconds: float | None = None, executor: str | None = None, queue: str | None = None,"
        " priority: int = 0, concurrency: int | None = None, rate: str | None = None, key: str | None = None,"
        " idempotent: bool = False, resources: dict[str, Any] | None = None) -> Callable[P, R]: ..."
    ),
    "Retry": (
        "class Retry:\n    def __init__(self, *, attempts: int = 3, first_delay_seconds: float = 1, factor: float = 2,"
        " max_delay_seconds: float = 60, jitter: float = 0.1, on: tuple[type[BaseException] | str, ...] = ...,"
        " when: str | None = None) -> None: ..."
    ),
}
_BLOCKING = frozenset({"publish", "emit"})

HELPERS = frozenset(_STUBS)
"""The names that a workflow can import from `durable_monty.flow`."""


def prelude(names: Mapping[str, str]) -> str:
    """The source of helpers.

    Args:
        names: The helper for each name that the workflow uses it by.
    """
    wanted = _with_needs(names.values())
    chosen = [helper for helper in _SOURCES if helper in wanted]
    if not chosen:
        return ""
    parts = [_SCOPED.strip() if is_scoped(names) else _PLAIN]
    if "as_completed" in chosen:
        parts.append(f"_all = {'_tasks' if is_scoped(names) else '_gather'}")
    parts += [_SOURCES[helper].strip() for helper in chosen]
    parts += [f"{alias} = {helper}" for alias, helper in names.items() if alias != helper and helper in _SOURCES]
    return "\n".join(parts) + "\n"


def served(names: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
    """What the engine serves to a workflow that uses these helpers.

    Returns:
        For each name that is called in the sandbox, what it stands for, and whether it is called without `await`.
    """
    found = {alias: (helper, helper in _BLOCKING) for alias, helper in names.items() if helper in _SERVED}
    for helper in _with_needs(names.values()):
        found |= {
            name: (name.removeprefix("_") if name == "_signal" else name, False) for name in HOSTED.get(helper, ())
        }
    return found


def is_scoped(names: Mapping[str, str]) -> bool:
    """Whether a workflow that uses these helpers has races."""
    return not SCOPED.isdisjoint(names.values())


def stubs(names: Mapping[str, str]) -> list[str]:
    """The helpers' signatures under the names that the workflow uses."""
    written = []
    for alias, helper in names.items():
        stub = _STUBS[helper]
        if helper == "options":
            retry = next((used for used, name in names.items() if name == "Retry"), "dict[str, Any]")
            stub = stub.replace("retry: Retry", f"retry: {retry}")
        for keyword in ("def", "class"):
            stub = stub.replace(f"{keyword} {helper}", f"{keyword} {alias}", 1)
        written.append(stub)
    return written


def _with_needs(helpers: Iterable[str]) -> set[str]:
    chosen = set(helpers)
    return chosen.union(*(_NEEDS.get(helper, ()) for helper in chosen))

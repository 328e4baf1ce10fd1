"""The helpers of `durable_monty.flow` as the sandbox runs them, and as the check at submit sees them.

The sandbox has `gather` and exceptions, and neither tasks nor futures: a `gather` whose first child to end raises is how
the first of several is found. Only what a workflow imports is taken, because every function in a snapshot costs bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_IMPORTS = "from asyncio import gather as _gather, sleep as _sleep"

_RACE = """
async def race(*aws):
    if not aws:
        raise ValueError('race() needs at least one awaitable')
    ended = []
    async def lane(i, aw):
        try:
            ended.append((i, await aw, None))
        except Exception as e:
            ended.append((i, None, e))
        raise RuntimeError('the race is decided')
    try:
        await _gather(*[lane(i, aw) for i, aw in enumerate(aws)])
    except RuntimeError:
        if not ended:
            raise
    i, value, error = ended[0]
    if error is not None:
        raise error
    return i, value
"""

_TIMEOUT = """
async def timeout(aw, seconds):
    async def expire():
        await _sleep(seconds)
        raise TimeoutError(f'not done within {seconds} s')
    return (await race(aw, expire()))[1]
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
    async def lane():
        while todo:
            i, item = todo.pop(0)
            try:
                out[i] = await fn(item)
            except BaseException:
                todo.clear()
                raise
    await _gather(*[lane() for _ in range(min(limit or len(todo), len(todo)))])
    return out
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

_SOURCES = {"race": _RACE, "timeout": _TIMEOUT, "settle": _SETTLE, "map": _MAP, "options": _OPTIONS, "Retry": _RETRY}
_NEEDS = {"timeout": ("race",)}
_STUBS = {
    "race": "async def race(*aws: Awaitable[Any]) -> tuple[int, Any]: ...",
    "timeout": "async def timeout[T](aw: Awaitable[T], seconds: float) -> T: ...",
    "settle": "async def settle(*aws: Awaitable[Any]) -> list[Any]: ...",
    "map": (
        "async def map[T, R](fn: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int | None = None)"
        " -> list[R]: ..."
    ),
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

HELPERS = frozenset(_SOURCES)
"""The names that a workflow can import from `durable_monty.flow`."""


def prelude(names: Mapping[str, str]) -> str:
    """The source of helpers.

    Args:
        names: The helper for each name that the workflow uses it by.
    """
    if not names:
        return ""
    parts = [_IMPORTS]
    # A helper that takes a builtin's place (`map`) must not take it from the others: it comes last.
    ordered = sorted(_with_needs(names.values()), key=lambda helper: (helper == "map", list(_SOURCES).index(helper)))
    parts += [_SOURCES[helper].strip() for helper in ordered]
    parts += [f"{alias} = {helper}" for alias, helper in names.items() if alias != helper]
    return "\n".join(parts) + "\n"


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

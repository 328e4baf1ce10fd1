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

_SOURCES = {"race": _RACE, "timeout": _TIMEOUT, "settle": _SETTLE, "map": _MAP}
_NEEDS = {"timeout": ("race",)}
_STUBS = {
    "race": "async def race(*aws: Awaitable[Any]) -> tuple[int, Any]: ...",
    "timeout": "async def timeout[T](aw: Awaitable[T], seconds: float) -> T: ...",
    "settle": "async def settle(*aws: Awaitable[Any]) -> list[Any]: ...",
    "map": (
        "async def map[T, R](fn: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int | None = None)"
        " -> list[R]: ..."
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
    return [_STUBS[helper].replace(f"def {helper}", f"def {alias}", 1) for alias, helper in names.items()]


def _with_needs(helpers: Iterable[str]) -> set[str]:
    chosen = set(helpers)
    return chosen.union(*(_NEEDS.get(helper, ()) for helper in chosen))

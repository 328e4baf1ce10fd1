"""Random workflows as text, and what plain asyncio makes of them in virtual time."""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import strategies as st

from durable_monty import flow, function, workflow

HEAD = """
from asyncio import gather, sleep
from durable_monty.flow import as_completed, child, map, race, settle, signal, timeout
leaf = LEAF
def shown(x):
    return 'failed' if isinstance(x, Exception) else x
"""


@function
async def step(name: str, seconds: float, ok: bool = True) -> str:
    """Takes so long and gives its name, or fails with it."""
    await asyncio.sleep(seconds)
    if not ok:
        raise ValueError(name)
    return name


@workflow
async def leaf(name: str, seconds: float, ok: bool) -> list[str]:
    first = await step(f"{name}a", seconds / 2)
    try:
        return [first, await step(f"{name}b", seconds / 2, ok)]
    finally:
        await step(f"{name}c", 0.0)


@dataclass
class Shape:
    """A workflow.

    Attributes:
        source: Defines `main`.
        signals: When signals are sent, with names.
    """

    source: str
    signals: list[tuple[float, str]] = field(default_factory=list)


class _Writer:
    """Writes one workflow; every stretch of time in it is different, so that nothing ever ends at the same time."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        self._blocks: list[str] = []
        self._numbers = 0
        # A name for each place that waits: of several tasks that begin to wait at the same time, which is first is not
        # the same under asyncio.
        self._names: list[str] = []

    def shape(self) -> Shape:
        body = self._block(self._draw(st.integers(1, 3)))
        count = self._draw(st.integers(0, 3)) if self._names else 0
        signals = [(self._seconds(), self._draw(st.sampled_from(self._names))) for _ in range(count)]
        main = f"""
async def main():
    try:
        return ['ok', await {body}]
    except Exception as e:
        return ['failed', type(e).__name__]
"""
        return Shape("\n".join([HEAD, *self._blocks, main]), signals)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _seconds(self) -> float:
        return round(self._draw(st.integers(1, 6)) + Random(self._number()).random(), 9)

    def _step(self) -> str:
        is_good = self._draw(st.integers(0, 5)) > 0
        return f"step('n{self._number()}', {self._seconds()}, {is_good})"

    def _awaitable(self, depth: int) -> str:
        """An expression to be awaited."""
        leaves = [self._step, self._step, self._sleep, self._signal, self._child]
        inner = [self._block, self._block, self._gather, self._race, self._race, self._timeout, self._settle, self._map]
        if depth <= 0 or self._draw(st.integers(0, 3)) == 0:
            return self._draw(st.sampled_from(leaves))()
        return self._draw(st.sampled_from([*inner, self._stream]))(depth - 1)

    def _sleep(self) -> str:
        return f"sleep({self._seconds()})"

    def _signal(self) -> str:
        self._names.append(f"s{self._number()}")
        return f"signal('{self._names[-1]}', timeout_seconds={self._seconds()})"

    def _child(self) -> str:
        inputs = f"{{'name': 'k{self._number()}', 'seconds': {self._seconds()}, 'ok': {self._draw(st.booleans())}}}"
        return f"child(leaf, inputs={inputs})"

    def _several(self, depth: int) -> str:
        return ", ".join(self._awaitable(depth) for _ in range(self._draw(st.integers(1, 3))))

    def _function(self, lines: list[str], parameters: str = "") -> str:
        name = f"b{self._number()}"
        self._blocks.append("\n".join([f"async def {name}({parameters}):", *(f"    {line}" for line in lines)]))
        return name

    def _gather(self, depth: int) -> str:
        return f"gather({self._several(depth)})"

    def _race(self, depth: int) -> str:
        return f"race({self._awaitable(depth)}, {self._several(depth)})"

    def _timeout(self, depth: int) -> str:
        return f"timeout({self._awaitable(depth)}, {self._seconds()})"

    def _settle(self, depth: int) -> str:
        return f"{self._function([f'return [shown(x) for x in await settle({self._several(depth)})]'])}()"

    def _map(self, depth: int) -> str:
        item = self._function([f"return [x, await {self._awaitable(depth)}, await step('m', x)]"], "x")
        items = [self._seconds() for _ in range(self._draw(st.integers(1, 3)))]
        return f"map({item}, {items}, limit={self._draw(st.sampled_from([1, 2, None]))})"

    def _stream(self, depth: int) -> str:
        lines = [
            "out = []",
            f"for item in as_completed([{self._several(depth)}]):",
            "    try:",
            "        out.append(await item)",
            "    except Exception as e:",
            "        out.append(type(e).__name__)",
            "return out",
        ]
        return f"{self._function(lines)}()"

    def _block(self, depth: int) -> str:
        """One thing after the other, some of it begun early, some of it with a cleanup or a second chance."""
        lines = ["out = []"]
        for _ in range(self._draw(st.integers(1, 3))):
            kind = self._draw(st.sampled_from(["plain", "finally", "except", "early"]))
            if kind == "early":
                early = [f"c{self._number()}" for _ in range(2)]
                lines += [f"{name} = {self._step()}" for name in early]
                lines.append(f"out.append(await {self._awaitable(depth)})")
                helper = self._draw(st.sampled_from(["gather", "race"]))
                lines.append(f"out.append(await {helper}({', '.join(early)}))")
                continue
            attempt = f"out.append(await {self._awaitable(depth)})"
            if kind == "plain":
                lines.append(attempt)
            elif kind == "finally":
                cleanup = f"out.append(await step('f{self._number()}', 0.0))"
                lines += ["try:", f"    {attempt}", "finally:", f"    {cleanup}"]
            else:
                lines += ["try:", f"    {attempt}", "except Exception as e:", "    out.append(type(e).__name__)"]
        return f"{self._function([*lines, 'return out'])}()"


@st.composite
def shapes(draw: Any) -> Shape:
    """A random workflow."""
    return _Writer(draw).shape()


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: time moves on instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits, and nothing will come"
        self.now += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-12

    def time(self) -> float:
        return self._virtual.now


def _at_once(call: Any) -> Any:
    """In a workflow a call is under way as soon as it is made, whether it is awaited or not."""
    return lambda *args, **kwargs: asyncio.ensure_future(call(*args, **kwargs))


def plain(shape: Shape) -> Any:
    """What the workflow returns under asyncio."""
    space: dict[str, Any] = {"LEAF": leaf}
    exec(compile(shape.source, "<shape>", "exec"), space)
    space |= {"step": _at_once(step), "sleep": _at_once(asyncio.sleep), "child": _at_once(flow.child)}

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        # What fails when nobody listens any more is of no interest.
        loop.set_exception_handler(lambda loop, context: None)
        for at, name in shape.signals:
            loop.call_later(at, flow._room().mail[name].put_nowait, f"sent at {at:.6f}")
        return await space["main"]()

    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(run())

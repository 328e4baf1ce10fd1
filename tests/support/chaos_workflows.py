"""Workflows of several shapes, and what each must give; every run of a function leaves a line in a ledger.

The ledger is the file that the environment variable `LEDGER` names. A line is written when the function's work is done,
in one `write` to a file opened for appending, so that lines of different processes never mix.
"""

from __future__ import annotations

import os
import time
from asyncio import gather, sleep
from dataclasses import dataclass
from typing import Any

from durable_monty import Retry, current_call, function, workflow


def record() -> None:
    call = current_call()
    line = f"{call.execution_id} {call.call_id} {call.attempt} {time.time()}\n"
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@function(timeout_seconds=600)
def add_one(value: int) -> int:
    # Long enough to be hit; the time limit is one that only a wrong clock exceeds.
    time.sleep(0.02)
    record()
    return value + 1


@function
async def square(value: int) -> int:
    record()
    return value * value


@function
def refuse(value: int) -> int:
    record()
    raise ValueError(f"{value} is refused")


@function(retry=Retry(attempts=3, first_delay_seconds=0.05))
def fail_at_first(value: int) -> int:
    if current_call().attempt == 1:
        raise ConnectionError("the first attempt fails")
    record()
    return value


@workflow
async def chain(start: int, length: int) -> int:
    value = start
    for _ in range(length):
        value = await add_one(value)
    return value


@workflow
async def fan_out(width: int) -> int:
    return sum(await gather(*[square(number) for number in range(width)]))


@workflow
async def nested(width: int, depth: int) -> int:
    async def branch(number: int) -> int:
        first = await square(number)
        return sum(await gather(*[add_one(first + item) for item in range(depth)]))

    return sum(await gather(*[branch(number) for number in range(width)]))


@workflow
async def catching(count: int) -> list[Any]:
    caught = []
    for number in range(count):
        try:
            await refuse(number)
        except ValueError as error:
            caught.append(str(error))
    return [caught, await fail_at_first(count)]


@workflow
async def failing(value: int) -> int:
    await square(value)
    return await refuse(value)


@workflow
async def pausing(value: int) -> int:
    async def branch(number: int) -> int:
        await sleep(0.1 * number)
        return await square(value + number)

    return sum(await gather(*[branch(number) for number in range(3)]))


@dataclass(frozen=True, slots=True)
class Planned:
    """An execution that is to be.

    Attributes:
        expected: Its result, or what the text of its failure holds.
    """

    execution_id: str
    workflow: Any
    inputs: dict[str, int]
    expected: Any
    fails: bool


def planned(number: int) -> Planned:
    """The execution of this number: every shape in turn, small and large."""
    size = 3 + number % 7
    shapes: list[tuple[Any, dict[str, int], Any]] = [
        (chain, {"start": number, "length": size}, number + size),
        (fan_out, {"width": 3 * size}, sum(item * item for item in range(3 * size))),
        (nested, {"width": 3, "depth": size}, sum(i * i + j + 1 for i in range(3) for j in range(size))),
        (catching, {"count": 3}, [[f"{item} is refused" for item in range(3)], 3]),
        (failing, {"value": number}, f"ValueError: {number} is refused"),
        (pausing, {"value": number}, sum((number + item) ** 2 for item in range(3))),
    ]
    workflow, inputs, expected = shapes[number % len(shapes)]
    return Planned(f"{number:05d}-{workflow.name}", workflow, inputs, expected, fails=workflow is failing)

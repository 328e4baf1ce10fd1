"""Many records, each an execution of its own, never more than a few at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from durable_monty import Retry, function, workflow
from durable_monty.flow import child, map, publish

DONE = Path("batch-done.txt")


@function(retry=Retry(attempts=3, first_delay_seconds=0.1))
def convert(number: int) -> int:
    """Stands for the work on one record."""
    if number % 10 == 7:
        raise ValueError(f"record {number} cannot be read")
    return number * number


@function
def store(number: int, value: int) -> None:
    with DONE.open("a") as file:
        file.write(f"{number} {value}\n")


@workflow
async def record(number: int) -> int:
    value = await convert(number)
    await store(number, value)
    return value


@workflow
async def batch(count: int, window: int = 5) -> dict[str, Any]:
    done, failed = 0, []

    async def one(number: int) -> None:
        nonlocal done
        try:
            await child(record, {"number": number})
            done += 1
        except ValueError:
            failed.append(number)
        publish("progress", {"done": done, "failed": len(failed), "of": count})

    await map(one, range(count), limit=window)
    return {"done": done, "failed": sorted(failed)}

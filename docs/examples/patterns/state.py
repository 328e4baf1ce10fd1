"""State: patterns 16 to 18. What happens next depends on what the world does."""

from __future__ import annotations

from asyncio import sleep

from durable_monty import function, workflow
from durable_monty.flow import race, signal


@function
def step(name: str) -> str:
    """An activity; what matters here is when it is begun."""
    return name


@workflow
async def deferred_choice() -> str:
    """16: the branches are offered, and the first event chooses; the others are withdrawn."""
    chosen, _ = await race(signal("customer answers"), sleep(7 * 86_400))
    return await step("continue" if chosen == 0 else "write a reminder")


@workflow
async def interleaved_parallel_routing() -> list[str]:
    """17: both have to be done, in any order, and never at the same time."""
    left, done = {"blood test", "x-ray"}, []
    while left:
        name = await signal("next")
        if name in left:
            left.remove(name)
            done.append(await step(name))
    return done


@workflow
async def milestone() -> int:
    """18: an activity that can be done only in a certain state: the order can be changed until it is packed."""
    changes = 0
    packing = step("pack")

    async def change() -> None:
        nonlocal changes
        while True:
            what = await signal("change")
            await step(f"change {what}")
            changes += 1

    await race(packing, change())
    await step("send")
    return changes

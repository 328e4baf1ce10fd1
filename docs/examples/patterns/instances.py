"""Multiple instances: patterns 12 to 15."""

from __future__ import annotations

from asyncio import gather

from durable_monty import function, workflow
from durable_monty.flow import map, signal, start_child


@function
def step(name: str) -> str:
    """An activity; what matters here is when it is begun."""
    return name


@workflow
async def parcel(number: int) -> None:
    """An instance with a life of its own."""
    await step(f"parcel {number}")


@workflow
async def instances_without_synchronization(count: int) -> str:
    """12: instances are begun and left alone; this execution goes on, and may end before them."""
    for number in range(count):
        await start_child(parcel, {"number": number}, parent_close="abandon")
    return await step("all are on their way")


@workflow
async def instances_known_at_design_time() -> str:
    """13: three signatures, always three."""
    await gather(step("signature 1"), step("signature 2"), step("signature 3"))
    return await step("countersign")


@workflow
async def instances_known_at_run_time(items: list[str]) -> str:
    """14: as many as there are items, known before the first begins; at most two at a time here."""
    await map(step, items, limit=2)
    return await step("done")


@workflow
async def instances_not_known_in_advance() -> list[str]:
    """15: more may be added while others run, until a signal says that there are no more."""

    async def witnesses() -> list[str]:
        name = await signal("witness")
        if name is None:
            return []
        statement, others = await gather(step(f"hear {name}"), witnesses())
        return [statement, *others]

    statements = await witnesses()
    await step("close the file")
    return statements

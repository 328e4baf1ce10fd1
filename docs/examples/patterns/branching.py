"""Advanced branching and synchronization: patterns 6 to 9."""

from __future__ import annotations

from asyncio import gather

from durable_monty import function, workflow
from durable_monty.flow import as_completed


@function
def step(name: str) -> str:
    """An activity; what matters here is when it is begun."""
    return name


@workflow
async def multi_choice(has_fire: bool, has_injured: bool) -> list[str]:
    """6: any number of branches, each chosen by data."""
    chosen = ["police"]
    if has_fire:
        chosen.append("fire brigade")
    if has_injured:
        chosen.append("ambulance")
    return await gather(*[step(name) for name in chosen])


@workflow
async def synchronizing_merge(has_fire: bool, has_injured: bool) -> str:
    """7: what comes next waits for those branches that were chosen, and for no others."""
    chosen = [name for name, wanted in [("fire brigade", has_fire), ("ambulance", has_injured)] if wanted]
    await gather(*[step(name) for name in chosen])
    return await step("report")


@workflow
async def multi_merge() -> None:
    """8: what comes next is done once for each branch that gets there, without waiting for the others."""

    async def branch(name: str) -> None:
        await step(name)
        await step(f"check {name}")

    await gather(branch("audit"), branch("process"))


@workflow
async def discriminator() -> str:
    """9: what comes next is done once, when the first branch gets there; the others end without effect."""
    answers = as_completed([step("first server"), step("second server"), step("third server")])
    fastest = await answers[0]
    await step(f"use {fastest}")
    for answer in answers[1:]:
        await answer
    return fastest

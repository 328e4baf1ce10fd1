"""Basic control flow: patterns 1 to 5."""

from __future__ import annotations

from asyncio import gather

from durable_monty import function, workflow


@function
def step(name: str) -> str:
    """An activity; what matters here is when it is begun."""
    return name


@workflow
async def sequence() -> list[str]:
    """1: one activity after another."""
    return [await step("order"), await step("pack"), await step("send")]


@workflow
async def parallel_split() -> list[str]:
    """2: several branches begin at the same time, each of its own length."""

    async def bill() -> str:
        await step("bill")
        return await step("book")

    return list(await gather(step("pack"), bill()))


@workflow
async def synchronization() -> str:
    """3: what comes next waits for all branches."""
    await gather(step("pack"), step("bill"))
    return await step("send")


@workflow
async def exclusive_choice(cents: int) -> str:
    """4: one branch of several, chosen by data."""
    if cents > 100_000:
        return await step("ask the manager")
    return await step("approve")


@workflow
async def simple_merge(by_post: bool) -> str:
    """5: what comes next follows whichever branch was taken."""
    if by_post:
        await step("print the letter")
    else:
        await step("write the mail")
    return await step("archive")

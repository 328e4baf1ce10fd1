"""Structure: patterns 10 and 11."""

from __future__ import annotations

from asyncio import gather

from durable_monty import function, workflow


@function
def step(name: str) -> str:
    """An activity; what matters here is when it is begun."""
    return name


@function
def review(version: int) -> str:
    """What the reviewer says: `accept`, `polish` or `rewrite`."""
    return "accept"


@workflow
async def arbitrary_cycles() -> int:
    """10: a cycle with more than one way in and out; a state and a loop say it without `goto`."""
    version, state = 0, "write"
    while state != "print":
        if state == "write":
            version += 1
            await step("write")
            state = "polish"
        if state == "polish":
            await step("polish")
            answer = await review(version)
            state = {"accept": "print", "polish": "polish"}.get(answer, "write")
    await step("print")
    return version


@workflow
async def implicit_termination() -> None:
    """11: there is no common end; the execution has ended when nothing is left to do in any branch."""

    async def branch(*names: str) -> None:
        for name in names:
            await step(name)

    await gather(branch("a1"), branch("b1", "b2"), branch("c1", "c2", "c3"))

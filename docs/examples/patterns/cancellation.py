"""Cancellation: patterns 19 and 20."""

from __future__ import annotations

from durable_monty import function, workflow
from durable_monty.flow import race, signal


@function
def step(name: str) -> str:
    """An activity; what matters here is when it is begun."""
    return name


@workflow
async def cancel_activity() -> str:
    """19: one activity is withdrawn, its job included, and the execution goes on."""
    winner, _ = await race(step("search"), signal("give up"))
    return await step("report" if winner == 0 else "apologize")


@workflow
async def cancel_case() -> None:
    """20: the whole execution is cancelled, from outside; what has to be tidied up is."""
    try:
        await step("reserve")
        await step("build")
    finally:
        await step("release")

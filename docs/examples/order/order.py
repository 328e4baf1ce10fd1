"""An order: reserve its items side by side, then charge the customer."""

from __future__ import annotations

from asyncio import gather
from typing import Any

from durable_monty import Retry, function, workflow


@function
def reserve(item: str) -> int:
    """The item's price in cents. A host function is ordinary Python, with every library there is."""
    return 100 * len(item)


@function(retry=Retry(attempts=5, first_delay_seconds=0.5))
async def charge(customer: str, cents: int) -> str:
    if cents > 2000:
        raise ValueError(f"{customer} cannot pay {cents} cents")
    return f"{customer} paid {cents} cents"


@workflow
async def order(customer: str, items: list[str]) -> dict[str, Any]:
    prices = await gather(*[reserve(item) for item in items])
    try:
        receipt = await charge(customer, sum(prices))
    except ValueError as error:
        receipt = f"refused: {error}"
    return {"items": len(items), "receipt": receipt}

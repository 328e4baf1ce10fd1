"""A subscription: charged every period, changed and cancelled by signals, for years."""

from __future__ import annotations

from typing import Any

from durable_monty import Retry, current_call, function, workflow
from durable_monty.flow import emit, publish, race, signal, timeout

MONTH_SECONDS = 30 * 86_400


@function(retry=Retry(attempts=5, first_delay_seconds=1))
def charge(customer: str, cents: int) -> str:
    """Stands for a payment service, which takes the key so that a repeated request charges once."""
    return f"receipt {current_call().idempotency_key}"


@function
def say_goodbye(customer: str, periods: int) -> None:
    print(f"goodbye {customer}, after {periods} periods")


@workflow
async def subscription(
    customer: str, cents: int, period_seconds: float = MONTH_SECONDS, most_periods: int = 120
) -> dict[str, Any]:
    periods = 0
    while periods < most_periods:
        receipt = await charge(customer, cents)
        periods += 1
        emit("receipts", {"receipt": receipt, "cents": cents})
        publish("state", {"periods": periods, "cents": cents})
        try:
            which, payload = await timeout(race(signal("cancel"), signal("price", type=int)), period_seconds)
        except TimeoutError:
            continue
        if which == 0:
            break
        cents = payload
    await say_goodbye(customer, periods)
    return {"periods": periods, "cents": cents}

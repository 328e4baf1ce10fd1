"""An order of three steps at three services, undone in reverse where one of them fails."""

from __future__ import annotations

from pathlib import Path

from durable_monty import Retry, current_call, function, workflow
from durable_monty.flow import publish, saga

LEDGER = Path("order-ledger.txt")


def write(line: str) -> None:
    """Stands for a service: what was done is a line, and doing it twice under one key is doing it once."""
    key = current_call().idempotency_key
    lines = LEDGER.read_text().splitlines() if LEDGER.exists() else []
    if not any(known.startswith(f"{key} ") for known in lines):
        with LEDGER.open("a") as file:
            file.write(f"{key} {line}\n")


@function
def reserve(item: str) -> str:
    write(f"reserve {item}")
    return f"reservation of {item}"


@function
def release(reservation: str) -> None:
    write(f"release {reservation}")


@function(retry=Retry(attempts=3, first_delay_seconds=0.2))
def charge(customer: str, cents: int) -> str:
    write(f"charge {customer} {cents}")
    return f"payment of {customer}"


@function(retry=Retry(attempts=10, first_delay_seconds=0.2))
def refund(payment: str) -> None:
    write(f"refund {payment}")


@function(retry=Retry(attempts=3, first_delay_seconds=0.2))
def ship(item: str, country: str) -> str:
    if country == "nowhere":
        raise ValueError(f"no carrier goes to {country}")
    write(f"ship {item} to {country}")
    return f"parcel to {country}"


@workflow
async def order(customer: str, item: str, cents: int, country: str) -> dict[str, str]:
    undo = saga()
    try:
        publish("state", "reserving")
        undo.add(release, await reserve(item))
        publish("state", "charging")
        undo.add(refund, await charge(customer, cents))
        publish("state", "shipping")
        return {"state": "done", "parcel": await ship(item, country)}
    except Exception as error:  # noqa: BLE001 - whatever it was, it is undone
        publish("state", "undoing")
        await undo.undo()
        return {"state": "undone", "reason": str(error)}

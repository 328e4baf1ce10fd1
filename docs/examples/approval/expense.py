"""An expense that a person approves: small ones pass, the others wait, are reminded of, and go to the boss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from durable_monty import function, workflow
from durable_monty.flow import publish, signal

OUTBOX = Path("outbox.txt")


@function
def mail(to: str, text: str) -> None:
    """Stands for a mail server."""
    with OUTBOX.open("a") as file:
        file.write(f"{to}: {text}\n")


async def decide(approver: str, what: str, reminders: int, remind_after_seconds: float) -> dict[str, Any] | None:
    """What the approver decides; None if there is no answer to any reminder."""
    for number in range(reminders + 1):
        await mail(approver, f"{'please decide' if number == 0 else f'reminder {number}'}: {what}")
        try:
            decision: dict[str, Any] = await signal("decision", timeout_seconds=remind_after_seconds, type=dict)
            return decision
        except TimeoutError:
            pass
    return None


@workflow
async def expense(who: str, what: str, cents: int, reminders: int = 2, remind_after_seconds: float = 86_400) -> str:
    if cents < 5_000:
        return "approved without a question"
    for approver in ("manager", "boss"):
        publish("waiting for", approver)
        decision = await decide(approver, f"{what} of {who} for {cents} cents", reminders, remind_after_seconds)
        if decision is not None:
            answer = "approved" if decision["approved"] else "refused"
            await mail(who, f"{what} was {answer} by {decision['by']}")
            return f"{answer} by {decision['by']}"
    await mail(who, f"nobody has decided about {what}")
    return "nobody decided"

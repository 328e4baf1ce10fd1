"""An outside service that is asked again and again until it is done, less and less often."""

from __future__ import annotations

from asyncio import sleep
from pathlib import Path
from typing import Any

from durable_monty import Retry, current_call, function, workflow
from durable_monty.flow import publish, timeout


@function
def begin_export(table: str) -> str:
    """Stands for `POST /exports`; the key makes a repeated request the same export."""
    job = f"export-{current_call().idempotency_key}"
    Path(f"{job}.txt").touch()
    return job


@function(retry=Retry(attempts=5, first_delay_seconds=0.1), timeout_seconds=10)
def look_at_export(job: str) -> dict[str, Any]:
    """Stands for `GET /exports/<job>`; this one is done at the fifth look."""
    with Path(f"{job}.txt").open("a") as file:
        file.write("looked at\n")
    looks = len(Path(f"{job}.txt").read_text().splitlines())
    return {"done": looks >= 5, "looks": looks}


async def until_done(job: str, first_pause_seconds: float, longest_pause_seconds: float) -> int:
    pause_seconds = first_pause_seconds
    while True:
        state = await look_at_export(job)
        publish("looks", state["looks"])
        if state["done"]:
            return int(state["looks"])
        await sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, longest_pause_seconds)


@workflow
async def export(
    table: str,
    first_pause_seconds: float = 10,
    longest_pause_seconds: float = 3600,
    give_up_after_seconds: float = 7 * 86_400,
) -> dict[str, Any]:
    job = await begin_export(table)
    try:
        looks = await timeout(until_done(job, first_pause_seconds, longest_pause_seconds), give_up_after_seconds)
    except TimeoutError:
        return {"job": job, "done": False}
    return {"job": job, "done": True, "looks": looks}

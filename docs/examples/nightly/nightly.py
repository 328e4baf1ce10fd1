"""A report every night, for the day before, at a time of one's own time zone."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from durable_monty import Retry, function, workflow


@function(retry=Retry(attempts=5, first_delay_seconds=60))
def collect(day: str) -> int:
    """Stands for a query; the same day gives the same figure, whenever it is asked."""
    return sum(map(ord, day))


@function
def write_report(day: str, figure: int) -> str:
    """Writing it again writes the same."""
    path = Path("reports") / f"{day}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{day}: {figure}\n")
    return str(path)


@workflow
async def nightly(at: datetime) -> str:
    day = (at - timedelta(days=1)).date().isoformat()
    return await write_report(day, await collect(day))

"""Thumbnails of a few hundred pictures: the functions run on RQ workers, the workflow where the database is."""

from __future__ import annotations

import os
import time
from asyncio import gather

from durable_monty import Retry, function, workflow


@function
def list_pictures(count: int) -> list[str]:
    return [f"picture-{number:03d}" for number in range(count)]


@function(retry=Retry(attempts=5, first_delay_seconds=0.2), timeout_seconds=30)
def shrink(picture: str) -> dict[str, str]:
    time.sleep(0.01)  # where an image library would be at work
    return {"thumbnail": f"{picture}-small", "worker": str(os.getppid())}


@workflow
async def thumbnails(count: int) -> dict[str, int]:
    pictures = await list_pictures(count)
    made = await gather(*[shrink(picture) for picture in pictures])
    return {"thumbnails": len({item["thumbnail"] for item in made}), "workers": len({item["worker"] for item in made})}

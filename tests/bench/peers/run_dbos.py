"""DBOS with its defaults: client and worker in one process."""

from __future__ import annotations

import asyncio
import os
import time

from dbos import DBOS
from shared import COUNT, URL, WORKLOAD, check, tell

DBOS(
    config={
        "name": "bench",
        "system_database_url": URL.replace("postgresql://", "postgresql+psycopg://"),
        "log_level": "ERROR",
    }
)


@DBOS.step()
async def add(a: int, b: int) -> int:
    return a + b


@DBOS.workflow()
async def chain(length: int) -> int:
    x = 0
    for _ in range(length):
        x = await add(x, 1)
    return x


async def one(length: int) -> None:
    check(await (await DBOS.start_workflow_async(chain, length)).get_result(), length)


async def main() -> None:
    await one(1)
    began_at = time.perf_counter()
    if WORKLOAD == "W1":
        await one(COUNT)
        tell((time.perf_counter() - began_at) / COUNT)
    elif WORKLOAD == "W3":
        handles = [await DBOS.start_workflow_async(chain, 3) for _ in range(COUNT)]
        for handle in handles:
            check(await handle.get_result(), 3)
        tell((time.perf_counter() - began_at) / COUNT / 3)
    else:
        times = []
        for _ in range(COUNT):
            began_at = time.perf_counter()
            await one(1)
            times.append(time.perf_counter() - began_at)
        times.sort()
        tell(times[COUNT // 2], p95=times[COUNT * 95 // 100])
    os._exit(0)


DBOS.launch()
asyncio.run(main())

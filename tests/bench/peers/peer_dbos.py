"""DBOS, a library in one process: who starts a workflow runs it; asynchronous workflows, default settings."""

from __future__ import annotations

import contest  # first: it may pin the process

# isort: split
import asyncio
import os
import sqlite3
import sys
import time
from typing import Any

chosen = contest.arguments()
if chosen.url.startswith("sqlite") and sqlite3.sqlite_version_info < (3, 42):
    raise SystemExit(f"needs SQLite 3.42 or newer; this Python has {sqlite3.sqlite_version}")

from dbos import DBOS, SetWorkflowID  # noqa: E402

DBOS(
    config={
        "name": "bench",
        "system_database_url": chosen.url.replace("postgresql://", "postgresql+psycopg://"),
        "log_level": "ERROR",
        "application_version": "1",
        "executor_id": "local",
    }
)


@DBOS.step()
async def add(value: int) -> int:
    return value


@DBOS.step()
async def stop() -> int:
    contest.mark(chosen.folder, f"{chosen.phase}.reached")
    await asyncio.sleep(3600)
    return 0


@DBOS.workflow()
async def chain(count: int) -> int:
    total = 0
    for number in range(count):
        total += await add(number)
    return total


@DBOS.workflow()
async def stops(count: int) -> int:
    for number in range(count):
        await add(number)
    return await stop()


@DBOS.workflow()
async def fan_out(count: int) -> int:
    return sum(await asyncio.gather(*[add(number) for number in range(count)]))


@DBOS.workflow()
async def waits() -> Any:
    return await DBOS.recv_async("go", timeout_seconds=3600)


async def main() -> None:
    await WORKLOADS[chosen.workload]()


async def one(workflow: Any) -> None:
    """W1 and W2."""
    await _result(chain, 1)
    began_at = time.perf_counter()
    found = await _result(workflow, chosen.n)
    seconds = time.perf_counter() - began_at
    contest.check(found, sum(range(chosen.n)))
    contest.report(seconds=seconds, peak_bytes=contest.resident_bytes(peak=True))


async def many() -> None:
    """W3: 50 starts in flight."""
    await _result(chain, 3)
    began_at = time.perf_counter()
    handles = []
    for start in range(0, chosen.n, 50):
        some = range(start, min(start + 50, chosen.n))
        handles += await asyncio.gather(*[DBOS.start_workflow_async(chain, 3) for _ in some])
    started = time.perf_counter() - began_at
    for handle in handles:
        contest.check(await handle.get_result(), 3)
    contest.report(seconds=time.perf_counter() - began_at, start_seconds=started)


async def resumed() -> None:
    """W4, one of its two processes: launching recovers what the dead one ran."""
    if chosen.phase == "first":
        with SetWorkflowID("one"):
            await DBOS.start_workflow_async(stops, chosen.n)
    await asyncio.sleep(3600)


async def waiting() -> None:
    """W5."""
    began_at = time.perf_counter()
    for _ in range(chosen.n):
        await DBOS.start_workflow_async(waits)
    seconds = time.perf_counter() - began_at
    contest.report(seconds=seconds, start_seconds=seconds, worker_bytes=contest.resident_bytes())


async def latency() -> None:
    """W6."""
    await _result(chain, 1)
    times = []
    for _ in range(chosen.n):
        began_at = time.perf_counter()
        await _result(chain, 1)
        times.append(time.perf_counter() - began_at)
    contest.report(seconds=sum(times), **contest.quantiles(times))


WORKLOADS: dict[str, Any] = {
    "W1": lambda: one(chain),
    "W2": lambda: one(fan_out),
    "W3": many,
    "W4": resumed,
    "W5": waiting,
    "W6": latency,
}


async def _result(workflow: Any, count: int) -> Any:
    return await (await DBOS.start_workflow_async(workflow, count)).get_result()


if __name__ == "__main__":
    if chosen.workload == "W4" and not chosen.phase:
        contest.killed_and_resumed(chosen)
        sys.exit()
    contest.mark(chosen.folder, f"{chosen.phase}.imported")
    DBOS.launch()
    asyncio.run(main())
    os._exit(0)  # it would wait for workflows that wait

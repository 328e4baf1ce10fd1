"""10,000 trivial calls through two `SimpleWorker`s, beside what RQ alone takes for the same."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import functions
import redis
from databases import Database
from figures import Figure
from rq import Queue
from rq import Worker as RQWorker
from rq.registry import FinishedJobRegistry
from rq.results import Result

from durable_monty import OrchestratorService, RQExecutor, Worker, init_db
from durable_monty.config import Config
from support import servers

FAN_OUT = "from asyncio import gather\nsum(await gather(*[identity(i) for i in range(n)]))"
# XDEL goes along with XACK in one pipeline.
ROUND_TRIPS = ("xreadgroup", "xautoclaim", "xack")


def rq(database: Database, is_quick: bool) -> Iterator[Figure]:
    """Interleaved runs; only on SQLite, as RQ does not care."""
    if database.name != "SQLite":
        return
    count, repeats = (1000, 1) if is_quick else (10_000, 3)
    raw, ours, trips = [], [], []
    for _ in range(repeats):
        with servers.valkey() as server, workers(server):
            raw.append(_raw(server, count))
        with servers.valkey() as server, workers(server):
            seconds, calls = _ours(database, server, count)
            ours.append(seconds)
            trips.append(calls)
    name = f"{count:,} calls through 2 SimpleWorkers"
    yield Figure(f"{name}, RQ alone", statistics.median(raw), "s")
    yield Figure(f"{name}, durable-monty", statistics.median(ours), "s")
    yield Figure(f"{name}, ratio", statistics.median(ours) / statistics.median(raw), "")
    yield Figure(f"{name}, round trips for replies", statistics.median(trips), "")
    with servers.valkey() as server:
        yield Figure("worker with 10,000 open jobs and no news", 100 * _idle(database, server), "% CPU")


@contextlib.contextmanager
def workers(server: servers.Valkey) -> Iterator[None]:
    """Two stock workers on the queue `bench`."""
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder.parent}"}
    command = [Path(sys.executable).parent / "rq", "worker", "bench", "--url", server.url, "--quiet"]
    processes = [subprocess.Popen([*command, "-w", "rq.SimpleWorker"], env=environment) for _ in range(2)]
    connection = redis.Redis.from_url(server.url)
    while len(RQWorker.all(connection=connection)) < 2:
        time.sleep(0.05)
    connection.close()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _raw(server: servers.Valkey, count: int) -> float:
    """Seconds for enqueuing, running, and reading every result in as few round trips as there can be."""
    connection = redis.Redis.from_url(server.url)
    queue = Queue("bench", connection=connection)
    began_at = time.perf_counter()
    jobs = []
    for start in range(0, count, 1000):
        datas = [Queue.prepare_data(functions.plain_identity, args=(i,)) for i in range(start, start + 1000)]
        jobs += queue.enqueue_many(datas)
    finished = FinishedJobRegistry(queue=queue).key
    while int(connection.zcard(finished)) < count:
        time.sleep(0.05)
    pipeline = connection.pipeline(transaction=False)
    for job in jobs:
        pipeline.xrevrange(Result.get_key(job.id), count=1)
    total = 0
    for job, entries in zip(jobs, pipeline.execute(), strict=True):
        entry_id, payload = entries[0]
        total += Result.restore(job.id, entry_id.decode(), payload, connection).return_value
    assert total == sum(range(count))
    seconds = time.perf_counter() - began_at
    connection.close()
    return seconds


def _ours(database: Database, server: servers.Valkey, count: int) -> tuple[float, int]:
    """Seconds for the same as one execution, and how many round trips it took to read and drop the replies."""
    with OrchestratorService(init_db(database.new_url()), Config()) as service:
        execution_id = service.start_execution(FAN_OUT, [functions.identity], {"n": count})
        began_at = time.perf_counter()
        Worker(service, RQExecutor(queue_name="bench", redis_url=server.url)).run(until_complete=True)
        seconds = time.perf_counter() - began_at
        assert service.get_result(execution_id) == sum(range(count))
    connection = redis.Redis.from_url(server.url)
    stats: Any = connection.info("commandstats")
    connection.close()
    return seconds, sum(int(stats[f"cmdstat_{name}"]["calls"]) for name in ROUND_TRIPS if f"cmdstat_{name}" in stats)


def _idle(database: Database, server: servers.Valkey) -> float:
    """Share of a processor that a worker takes while 10,000 jobs wait in a queue that nobody serves."""
    with OrchestratorService(init_db(database.new_url()), Config()) as service:
        service.start_execution(FAN_OUT, [functions.identity], {"n": 10_000})
        worker = Worker(service, RQExecutor(queue_name="nobody", redis_url=server.url, max_in_flight=10_000))
        began_at = time.monotonic()
        used = [0.0]

        def is_over() -> bool:
            now = time.monotonic() - began_at
            if now > 15 and not used[0]:
                used[0] = time.process_time()
            return now > 45

        worker.run_until(is_over)
        return (time.process_time() - used[0]) / 30

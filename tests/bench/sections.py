"""What is measured. Each section is a function of a database and a scale that yields figures."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import functions
from databases import Database, commit_seconds
from figures import Figure
from rq_section import rq
from sqlalchemy import text

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config

CHAIN = "x = 0\nfor i in range(n):\n    x = await add(x, 1)\nx"
FAN_OUT = "from asyncio import gather\nlen(await gather(*[add(i, 1) for i in range(n)]))"
THREE_STEPS = "await add(await add(await add(0, 1), 1), 1)"
RESUMED = "x = 0\nfor i in range(n):\n    x = await add(x, 1)\nawait gate()\nawait begin(path)\nx"


Section = Callable[[Database, bool], Iterator[Figure]]


def chain(database: Database, is_quick: bool) -> Iterator[Figure]:
    """One execution, one call after the other."""
    for count, repeats in ((100, 5), (1000, 3)) if is_quick else ((100, 7), (1000, 5), (10_000, 1)):
        commit, seconds = _median_run(database, CHAIN, count, repeats)
        yield _timed(f"chain of {count:,}, per step", seconds / count, commit)


def fan_out(database: Database, is_quick: bool) -> Iterator[Figure]:
    """One execution, all calls at once."""
    for count, repeats in ((100, 5), (1000, 3)) if is_quick else ((100, 7), (1000, 5), (10_000, 3)):
        commit, seconds = _median_run(database, FAN_OUT, count, repeats)
        yield _timed(f"fan-out of {count:,}, per call", seconds / count, commit)


def many_executions(database: Database, is_quick: bool) -> Iterator[Figure]:
    """Executions of three steps, begun when all of them are stored."""
    count = 100 if is_quick else 1000
    url = database.new_url()
    commit = commit_seconds(url)
    with OrchestratorService(init_db(url), Config()) as service:
        began_at = time.perf_counter()
        for _ in range(count):
            service.start_execution(THREE_STEPS, [functions.add])
        yield _timed(f"{count:,} executions of 3 steps, storing one", (time.perf_counter() - began_at) / count, commit)
        began_at = time.perf_counter()
        Worker(service).run(until_complete=True)
        seconds = time.perf_counter() - began_at
        yield Figure(f"{count:,} executions of 3 steps, in all", seconds, "s")
        yield _timed(f"{count:,} executions of 3 steps, per step", seconds / count / 3, commit)


def latency(database: Database, is_quick: bool) -> Iterator[Figure]:
    """From `start_execution` in one thread to the result of one step, with an idle worker in another process's place."""
    url = database.new_url()
    commit = commit_seconds(url)
    times = []
    with OrchestratorService(init_db(url), Config()) as client, OrchestratorService(init_db(url), Config()) as service:
        worker = Worker(service)
        thread = threading.Thread(target=worker.run)
        thread.start()
        for _ in range(20 if is_quick else 200):
            began_at = time.perf_counter()
            client.wait(client.start_execution("await add(1, 2)", [functions.add]), 60)
            times.append(time.perf_counter() - began_at)
        worker.stop()
        thread.join()
    quantiles = statistics.quantiles(times, n=20)
    yield _timed("start to result of 1 step, p50", quantiles[9], commit)
    yield _timed("start to result of 1 step, p95", quantiles[18], commit)


def resume(database: Database, is_quick: bool) -> Iterator[Figure]:
    """A fresh process finds an execution whose last outcome came while nobody ran: until its next call begins."""
    for count in (10, 1000) if is_quick else (10, 1000, 50_000):
        starts, resumes = [], []
        for _ in range(3 if count <= 1000 else 1):
            url = _suspended(database, count)
            start, until_call = _resumed(url)
            starts.append(start)
            resumes.append(until_call)
        yield Figure(f"resume after {count:,} steps, imports", 1000 * statistics.median(starts), "ms")
        yield Figure(f"resume after {count:,} steps, then until the call", 1000 * statistics.median(resumes), "ms")


def size(database: Database, is_quick: bool) -> Iterator[Figure]:
    """What an execution that waits for its first call takes."""
    count = 100 if is_quick else 1000
    url = database.new_url()
    with OrchestratorService(init_db(url), Config()) as service:
        for _ in range(10):
            service.process_execution(service.start_execution(THREE_STEPS, [functions.add]))
        before = _bytes_used(service)
        for _ in range(count):
            service.process_execution(service.start_execution(THREE_STEPS, [functions.add]))
        grown = _bytes_used(service) - before
        snapshot = service.runtime.store.snapshot(service.list_executions(limit=1)[0]["execution_id"])
    assert snapshot is not None
    yield Figure("snapshot of a suspended execution", len(snapshot.data), "bytes")
    yield Figure(f"database per suspended execution, of {count:,}", grown / count, "bytes")


SECTIONS: dict[str, Section] = {
    "chain": chain,
    "fan-out": fan_out,
    "executions": many_executions,
    "latency": latency,
    "resume": resume,
    "size": size,
    "rq": rq,
}


def _timed(what: str, seconds: float, commit: float) -> Figure:
    return Figure(what, 1000 * seconds, "ms", seconds / commit)


def _median_run(database: Database, code: str, count: int, repeats: int) -> tuple[float, float]:
    """Median seconds of a bare commit, and of the runs of an execution with `n = count`."""
    commits, times = [], []
    for _ in range(repeats):
        url = database.new_url()
        commits.append(commit_seconds(url))
        with OrchestratorService(init_db(url), Config()) as service:
            service.start_execution(code, [functions.add], {"n": count})
            began_at = time.perf_counter()
            Worker(service).run(until_complete=True)
            times.append(time.perf_counter() - began_at)
    return statistics.median(commits), statistics.median(times)


def _suspended(database: Database, count: int) -> str:
    """A database with an execution that has made `count` steps and whose next outcome is there, undelivered."""
    url = database.new_url()
    functions.gate_reached.clear()
    functions.gate_opened.clear()
    with OrchestratorService(init_db(url), Config()) as service:
        inputs = {"n": count, "path": str(Path(tempfile.mkdtemp(prefix="durable-monty-bench-")) / "began")}
        hosts = [functions.add, functions.gate, functions.begin]
        execution_id = service.start_execution(RESUMED, hosts, inputs, execution_id="resumed")
        worker = Worker(service)
        thread = threading.Thread(target=worker.run)
        thread.start()
        functions.gate_reached.wait()
        worker.stop(0)
        thread.join()
        functions.gate_opened.set()
        (call,) = service.get_pending_calls(execution_id)
        service.complete_call(execution_id, call.call_id, None)
    return url


def _resumed(url: str) -> tuple[float, float]:
    """Seconds until the imports of a fresh process are done, and from then until the next call begins."""
    with OrchestratorService(init_db(url), Config()) as service:
        path = Path(service.get_execution("resumed")["inputs"]["path"])
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder.parent}"}
    began_at = time.time()
    done = subprocess.run(
        [sys.executable, folder / "resumed.py", url], env=environment, capture_output=True, text=True, check=True
    )
    imported_at = float(done.stdout)
    return imported_at - began_at, float(path.read_text()) - imported_at


def _bytes_used(service: OrchestratorService) -> int:
    with service.runtime.store._connections.write() as connection:
        if connection.dialect.name == "sqlite":
            pages = int(connection.execute(text("PRAGMA page_count")).scalar_one())
            return pages * int(connection.execute(text("PRAGMA page_size")).scalar_one())
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

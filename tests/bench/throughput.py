"""How long many steps take: one after the other, all at once, and spread over executions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import functions
from databases import Database
from figures import Figure, timed
from opened import opened

from durable_monty import OrchestratorService, Worker

THREE_STEPS = "await add(await add(await add(0, 1), 1), 1)"
_CHAIN = "x = 0\nfor i in range(n):\n    x = await add(x, 1)\nx"
_FAN_OUT = "from asyncio import gather\nlen(await gather(*[add(i, 1) for i in range(n)]))"


def chain(database: Database, is_quick: bool) -> Iterator[Figure]:
    """One execution, one call after the other."""
    for count, repeats in ((100, 3), (1000, 1)) if is_quick else ((100, 7), (1000, 5), (10_000, 1)):
        seconds, commit_seconds = _median_run(database, _CHAIN, count, repeats)
        yield timed(f"chain of {count:,} steps, per step", seconds / count, commit_seconds)


def fan_out(database: Database, is_quick: bool) -> Iterator[Figure]:
    """One execution, all calls at once."""
    for count, repeats in ((100, 3), (1000, 3)) if is_quick else ((100, 7), (1000, 5), (10_000, 3)):
        seconds, commit_seconds = _median_run(database, _FAN_OUT, count, repeats)
        yield timed(f"fan-out of {count:,} calls, per call", seconds / count, commit_seconds)


def executions(database: Database, is_quick: bool) -> Iterator[Figure]:
    """Executions of three steps; the worker begins when all of them are stored."""
    count, repeats = (100, 1) if is_quick else (1000, 3)
    stored, ran, commits = [], [], []
    for _ in range(repeats):
        url = database.new_url()
        commits.append(database.commit_seconds(url))
        with opened(url) as service:
            began_at = time.perf_counter()
            for _ in range(count):
                service.start_execution(THREE_STEPS, [functions.add])
            stored.append(time.perf_counter() - began_at)
            ran.append(_run_to_end(service))
            _check_ended(service, count)
    commit_seconds, seconds = statistics.median(commits), statistics.median(ran)
    name = f"{count:,} executions of 3 steps"
    yield timed(f"{name}, to start one", statistics.median(stored) / count, commit_seconds)
    yield timed(f"{name}, to run all", seconds, commit_seconds, unit="s")
    yield timed(f"{name}, per step", seconds / count / 3, commit_seconds)


def _median_run(database: Database, code: str, count: int, repeats: int) -> tuple[float, float]:
    """Median seconds of a run with `n = count`, from the worker's start to its end, and of a bare commit.

    The commit is measured right before and right after each run: a long one may see the disk in several moods.
    """
    commits, times = [], []
    for _ in range(repeats):
        url = database.new_url()
        commits.append(database.commit_seconds(url))
        with opened(url) as service:
            execution_id = service.start_execution(code, [functions.add], {"n": count})
            times.append(_run_to_end(service))
            found = service.get_result(execution_id)
        commits.append(database.commit_seconds(url))
        if found != count:
            raise RuntimeError(f"running {code!r}: the result is {found!r}, not {count}; these figures mean nothing")
    return statistics.median(times), statistics.median(commits)


def _run_to_end(service: OrchestratorService) -> float:
    began_at = time.perf_counter()
    Worker(service).run(until_complete=True)
    return time.perf_counter() - began_at


def _check_ended(service: OrchestratorService, count: int) -> None:
    found = len(service.list_executions("completed", limit=count + 1))
    if found != count:
        raise RuntimeError(f"running {count} executions: {found} completed; these figures mean nothing")

"""How long one short execution takes when a worker sits idle."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator

import functions
from databases import Database
from figures import Figure, timed
from opened import opened

from durable_monty import OrchestratorService, Worker

_CODE = "await add(1, 2)"
_WAIT_SECONDS = 60.0


def latency(database: Database, is_quick: bool) -> Iterator[Figure]:
    """From the call of `start_execution` in one thread to the result, the worker running in another.

    Once with one service for both, and once with a service each, which know of each other only through the database, as
    two processes do. The store's own times tell how much of it the worker took: `wait` asks the database in growing
    steps, and what it sleeps too long is no work.
    """
    count = 20 if is_quick else 200
    for is_shared, whose in ((True, "same service"), (False, "own services")):
        url = database.new_url()
        commit_seconds = database.commit_seconds(url)
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(opened(url))
            served = client if is_shared else stack.enter_context(opened(url))
            stack.enter_context(_working(served))
            _one(client)  # the first one pays for the sandbox and the type check
            runs = [_one(client) for _ in range(count)]
        for index, what in enumerate(("start to result", "stored to ended")):
            quantiles = statistics.quantiles([run[index] for run in runs], n=20)
            for percent, seconds in ((50, quantiles[9]), (95, quantiles[18])):
                yield timed(f"1 step, {whose}, {what}, p{percent}", seconds, commit_seconds)


@contextlib.contextmanager
def _working(service: OrchestratorService) -> Iterator[None]:
    worker = Worker(service)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


def _one(client: OrchestratorService) -> tuple[float, float]:
    """Seconds until the result is in the caller's hands, and between the store's times of start and end."""
    began_at = time.perf_counter()
    ended = client.wait(client.start_execution(_CODE, [functions.add]), _WAIT_SECONDS)
    seconds = time.perf_counter() - began_at
    if ended["output"] != 3:
        raise RuntimeError(f"running {_CODE!r}: it ended as {ended['status']!r}; these figures mean nothing")
    return seconds, ended["ended_at"] - ended["created_at"]

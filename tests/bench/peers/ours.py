"""Our own runs: the service and the worker as a user has them, with the default configuration and the local executor."""

from __future__ import annotations

import contest  # first: it may pin the process

# isort: split
import contextlib
import functools
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import hosts
from sqlalchemy import text

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config

CHAIN = "total = 0\nfor i in range(n):\n    total += await add(i)\ntotal"
FAN_OUT = "from asyncio import gather\nsum(await gather(*[add(i) for i in range(n)]))"
WAITS = "from durable_monty.flow import signal\nawait signal('go')"
# A chain of 100,000 would take minutes for nothing: what lies behind is the same.
STOPS = """
from asyncio import gather
total = 0
for i in range(n // width):
    total += sum(await gather(*[add(i) for _ in range(width)]))
await stop(folder, 'reached')
"""
_WAIT_SECONDS = 600.0
_LOOK_SECONDS = 0.02
_LONGEST_CHAIN = 1000
_WIDTH = 100


def main() -> None:
    chosen = contest.arguments()
    if chosen.phase.startswith("worker"):
        _work(chosen)
    elif chosen.workload == "W4" and not chosen.phase:
        contest.killed_and_resumed(chosen)
    else:
        WORKLOADS[chosen.workload](chosen)


def one(chosen: Any, code: str) -> None:
    """W1 and W2: one execution of N steps or calls; the worker is a thread, which has run one execution before."""
    with _served(chosen) as service:
        began_at = time.perf_counter()
        found = _result(service, code, {"n": chosen.n})
        seconds = time.perf_counter() - began_at
    contest.check(found, sum(range(chosen.n)))
    contest.report(seconds=seconds, peak_bytes=contest.resident_bytes(peak=True))


def many(chosen: Any) -> None:
    """W3: N executions of three steps, started by this process, run by worker processes."""
    with _opened(chosen) as service, contest.workers(chosen):
        _result(service, CHAIN, {"n": 3})
        began_at = time.perf_counter()
        ids = service.start_executions(CHAIN, [hosts.add], [{"n": 3}] * chosen.n)
        started = time.perf_counter() - began_at
        _until(service, "completed", chosen.n + 1)
        seconds = time.perf_counter() - began_at
        for execution_id in ids:
            contest.check(service.get_result(execution_id), 3)
        contest.report(seconds=seconds, start_seconds=started)


def resumed(chosen: Any) -> None:
    """W4, one of its two processes."""
    (chosen.folder / "phase").write_text(chosen.phase)
    contest.mark(chosen.folder, f"{chosen.phase}.imported")
    width = 1 if chosen.n <= _LONGEST_CHAIN else _WIDTH
    with _opened(chosen) as service:
        if chosen.phase == "first":
            inputs = {"n": chosen.n, "width": width, "folder": str(chosen.folder)}
            service.start_execution(STOPS, [hosts.add, hosts.stop], inputs)
        Worker(service).run()


def waiting(chosen: Any) -> None:
    """W5: N executions started by this process, until each waits for a signal."""
    with _opened(chosen) as service, contest.workers(chosen) as processes:
        began_at = time.perf_counter()
        service.start_executions(WAITS, inputs=[{}] * chosen.n)
        started = time.perf_counter() - began_at
        _until(service, "waiting", chosen.n)
        seconds = time.perf_counter() - began_at
        contest.report(seconds=seconds, start_seconds=started, worker_bytes=contest.resident_bytes(processes[0].pid))


def latency(chosen: Any) -> None:
    """W6: one step, from start to result, N times in a row."""
    times = []
    with _served(chosen) as service:
        for number in range(chosen.n):
            began_at = time.perf_counter()
            contest.check(_result(service, "await add(n)", {"n": number}), number)
            times.append(time.perf_counter() - began_at)
    contest.report(seconds=sum(times), **contest.quantiles(times))


WORKLOADS = {
    "W1": functools.partial(one, code=CHAIN),
    "W2": functools.partial(one, code=FAN_OUT),
    "W3": many,
    "W4": resumed,
    "W5": waiting,
    "W6": latency,
}


def _opened(chosen: Any) -> OrchestratorService:
    # Whatever files and variables the machine has.
    return OrchestratorService(init_db(chosen.url, synchronous=chosen.synchronous), Config())


@contextlib.contextmanager
def _served(chosen: Any) -> Iterator[OrchestratorService]:
    with _opened(chosen) as service:
        worker = Worker(service)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            _result(service, CHAIN, {"n": 1})  # the first one pays for the sandbox and the type check
            yield service
        finally:
            worker.stop()
            thread.join()


def _result(service: OrchestratorService, code: str, inputs: dict[str, Any]) -> Any:
    ended = service.wait(service.start_execution(code, [hosts.add], inputs), _WAIT_SECONDS)
    if ended["status"] != "completed":
        raise SystemExit(f"running {code!r}: it ended as {ended['status']!r}: {ended['error']}")
    return ended["output"]


def _until(service: OrchestratorService, status: str, count: int) -> None:
    """As often and as cheaply as for the peers: one query that counts, no rows."""
    query = text("SELECT count(*) FROM executions WHERE status = :status")
    with service.runtime.store._connections.engine.connect() as connection:
        while connection.scalar(query, {"status": status}) < count:
            connection.rollback()
            time.sleep(_LOOK_SECONDS)


def _work(chosen: Any) -> None:
    with _opened(chosen) as service:
        contest.mark(chosen.folder, f"{chosen.phase}.up")
        Worker(service).run()


if __name__ == "__main__":
    sys.exit(main())

"""Absurd: a worker process and this one, which starts tasks; its poll is 10 ms instead of its default of 250 ms."""

from __future__ import annotations

import contest  # first: it may pin the process

# isort: split
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
from absurd_sdk import Absurd

_POLL_SECONDS = 0.01
_LOOK_SECONDS = 0.001
_BATCHES = {"W3": 50, "W5": 50}


def main() -> None:
    chosen = contest.arguments()
    if chosen.phase:
        _phase(chosen)
        return
    subprocess.run(
        [Path(sys.executable).with_name("absurdctl"), "init", "-d", chosen.url], check=True, stdout=subprocess.DEVNULL
    )
    Absurd(chosen.url).create_queue("default")
    if chosen.workload == "W4":
        contest.killed_and_resumed(chosen)
    elif chosen.workload in WORKLOADS:
        WORKLOADS[chosen.workload](chosen)
    else:
        raise SystemExit(f"Absurd cannot do {chosen.workload}: its steps run one after the other")


def chain(chosen: Any) -> None:
    """W1."""
    with contest.workers(chosen):
        app = _app(chosen)
        _result(app, 1)
        began_at = time.perf_counter()
        found = _result(app, chosen.n)
        contest.report(seconds=time.perf_counter() - began_at)
    contest.check(found, sum(range(chosen.n)))


def many(chosen: Any) -> None:
    """W3."""
    with contest.workers(chosen), psycopg.connect(chosen.url, autocommit=True) as connection:
        app = _app(chosen)
        _result(app, 3)
        began_at = time.perf_counter()
        for _ in range(chosen.n):
            app.spawn("chain", {"n": 3})
        started = time.perf_counter() - began_at
        _until_none(connection, "completed")
        contest.report(seconds=time.perf_counter() - began_at, start_seconds=started)


def waiting(chosen: Any) -> None:
    """W5."""
    with contest.workers(chosen) as processes, psycopg.connect(chosen.url, autocommit=True) as connection:
        app = _app(chosen)
        began_at = time.perf_counter()
        for number in range(chosen.n):
            app.spawn("waits", {"number": number})
        started = time.perf_counter() - began_at
        _until_none(connection, "sleeping")
        contest.report(
            seconds=time.perf_counter() - began_at,
            start_seconds=started,
            worker_bytes=contest.resident_bytes(processes[0].pid),
        )


def latency(chosen: Any) -> None:
    """W6."""
    with contest.workers(chosen):
        app = _app(chosen)
        _result(app, 1)
        times = []
        for _ in range(chosen.n):
            began_at = time.perf_counter()
            _result(app, 1)
            times.append(time.perf_counter() - began_at)
    contest.report(seconds=sum(times), **contest.quantiles(times))


WORKLOADS = {"W1": chain, "W3": many, "W5": waiting, "W6": latency}


def _app(chosen: Any) -> Absurd:
    app = Absurd(chosen.url)

    @app.register_task(name="chain")
    def _chain(parameters: Any, context: Any) -> int:
        return sum(context.step("add", lambda value=number: value) for number in range(parameters["n"]))

    @app.register_task(name="stops")
    def _stops(parameters: Any, context: Any) -> int:
        total = sum(context.step("add", lambda value=number: value) for number in range(parameters["n"]))

        def stop() -> int:
            contest.mark(chosen.folder, f"{chosen.phase}.reached")
            time.sleep(3600)
            return total

        return int(context.step("stop", stop))

    @app.register_task(name="waits")
    def _waits(parameters: Any, context: Any) -> Any:
        return context.await_event(f"go-{parameters['number']}")

    return app


def _phase(chosen: Any) -> None:
    contest.mark(chosen.folder, f"{chosen.phase}.imported")
    app = _app(chosen)
    if chosen.phase == "first":
        app.spawn("stops", {"n": chosen.n})
    elif chosen.phase == "second":
        # The dead process's claim would expire after 120 s by default: by hand, so that only its own work is timed.
        with psycopg.connect(chosen.url, autocommit=True) as connection:
            connection.execute(
                "UPDATE absurd.r_default SET claim_expires_at = now() - interval '1 s' WHERE state = 'running'"
            )
    contest.mark(chosen.folder, f"{chosen.phase}.up")
    app.start_worker(worker_id=chosen.phase, batch_size=_BATCHES.get(chosen.workload, 1), poll_interval=_POLL_SECONDS)


def _result(app: Absurd, count: int) -> Any:
    task = app.spawn("chain", {"n": count})["task_id"]
    while (found := app.fetch_task_result(task)).state not in ("completed", "failed"):
        time.sleep(_LOOK_SECONDS if count < 10 else 0.005)
    return found.result


def _until_none(connection: Any, state: str) -> None:
    query = "SELECT count(*) FROM absurd.t_default WHERE state NOT IN (%s, 'completed')"
    while connection.execute(query, (state,)).fetchone()[0]:
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())

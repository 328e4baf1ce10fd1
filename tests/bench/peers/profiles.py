"""Where the time of our own workloads goes: each run once in one process under cProfile, and its time sorted by parts.

It sees one thread: of turns that are run two at a time, and of host functions, it tells what that thread did of them. And
it makes Python's own part look larger than it is, by about a half; what waits is not touched by it.
"""

from __future__ import annotations

import cProfile
import pstats
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import hosts
from databases import Database
from ours import CHAIN, FAN_OUT, WAITS
from sqlalchemy import text

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config

PARTS = ("sandbox", "database", "other threads", "engine", "store", "interpreter", "libraries")


@dataclass(frozen=True)
class Run:
    """One workload: what is done before the profiler is switched on, and what under it.

    Attributes:
        number: By how many the time is divided.
    """

    name: str
    number: int
    prepare: Callable[[OrchestratorService, int], Any]
    work: Callable[[OrchestratorService, int], Any]


def profiles(database: Database, *, is_quick: bool) -> str:
    """A table: for each workload, milliseconds and the share of each part."""
    rows = [_row(run, *_profiled(database, run)) for run in _runs(10 if is_quick else 1)]
    head = f"| run | ms each | {' | '.join(PARTS)} |\n|---|---:|{'---:|' * len(PARTS)}"
    imports = _imports()
    whole = sum(imports.values())
    most = ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in imports.most_common(6))
    return "\n\n".join(
        [
            "### Where the time goes, under the profiler, on PostgreSQL",
            "\n".join([head, *rows]),
            f"Importing what a worker on PostgreSQL needs (W4) takes {1000 * whole:.0f} ms: {most}.",
        ]
    )


def _runs(divisor: int) -> Iterable[Run]:
    def start(code: str, n: int | None = None) -> Callable[[OrchestratorService, int], Any]:
        return lambda service, number: service.start_execution(code, [hosts.add], {"n": number if n is None else n})

    def start_many(code: str, inputs: dict[str, Any]) -> Callable[[OrchestratorService, int], Any]:
        functions = [hosts.add] if inputs else []
        return lambda service, number: service.start_executions(code, functions, [inputs] * number)

    def finish(service: OrchestratorService, number: int) -> None:
        Worker(service).run(until_complete=True)

    def first_turns(service: OrchestratorService, number: int) -> None:
        Worker(service).run_until(lambda: _count(service, "waiting") == number)

    def one_by_one(service: OrchestratorService, number: int) -> None:
        begun = 1

        def is_over() -> bool:
            nonlocal begun
            if _count(service, "completed") < begun:
                return False
            service.start_execution("await add(n)", [hosts.add], {"n": begun})
            begun += 1
            return begun > number

        Worker(service).run_until(is_over)

    return [
        Run("W1, a step of a chain", 1000 // divisor, start(CHAIN), finish),
        Run("W2, a call of a gather", 10_000 // divisor, start(FAN_OUT), finish),
        Run("W3, an execution of three steps", 1000 // divisor, start_many(CHAIN, {"n": 3}), finish),
        Run("W5, a start", 2000 // divisor, start(WAITS.replace("'go'", "str(n)"), 1), start_many(WAITS, {})),
        Run("W5, a first turn", 2000 // divisor, start_many(WAITS, {}), first_turns),
        Run("W6, one step from start to result", 200 // divisor, lambda service, number: None, one_by_one),
    ]


def _count(service: OrchestratorService, status: str) -> int:
    query = text("SELECT count(*) FROM executions WHERE status = :status")
    with service.runtime.store._connections.read() as connection:
        found: int = connection.scalar(query, {"status": status})
    return found


def _profiled(database: Database, run: Run) -> tuple[float, Counter[str]]:
    """Seconds, and those of each part."""
    with OrchestratorService(init_db(database.new_url()), Config()) as service:
        # The first one pays for the sandbox, the type check and imports.
        service.start_execution(CHAIN, [hosts.add], {"n": 1})
        Worker(service).run(until_complete=True)
        run.prepare(service, run.number)
        profiler = cProfile.Profile()
        profiler.runcall(run.work, service, run.number)
    parts: Counter[str] = Counter()
    stats: Any = pstats.Stats(profiler)
    for (file, _, function), (_, _, seconds, *_) in stats.stats.items():
        parts[_part(file, function)] += seconds
    return sum(parts.values()), parts


def _row(run: Run, seconds: float, parts: Counter[str]) -> str:
    shares = " | ".join(f"{100 * parts[part] / seconds:.0f} %" for part in PARTS)
    return f"| {run.name} | {1000 * seconds / run.number:.2f} | {shares} |"


def _part(file: str, function: str) -> str:
    """Which part a function belongs to; most time is in those that wait for another process."""
    if "pydantic_monty" in function or (file.endswith("contextlib.py") and function == "__exit__"):
        # The pool's context manager is entered and left through `contextlib`.
        return "sandbox"
    if "psycopg" in file or "sqlalchemy" in file or "sqlite3" in function:
        return "database"
    if "_thread.lock" in function or "_queue" in function:
        return "other threads"
    if "durable_monty/store" in file:
        return "store"
    if "durable_monty/interpreter" in file:
        return "interpreter"
    return "engine" if "durable_monty" in file else "libraries"


def _imports() -> Counter[str]:
    """Seconds of each package's own modules, in a process that imports what a worker does."""
    command = [sys.executable, "-X", "importtime", "-c", "import durable_monty.worker, durable_monty.cli, psycopg"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    seconds: Counter[str] = Counter()
    for line in told.splitlines():
        own, _, name = line.removeprefix("import time:").rpartition("|")
        microseconds = own.partition("|")[0].strip()
        if microseconds.isdigit():
            package = name.strip().partition(".")[0]
            is_standard = package in sys.stdlib_module_names
            seconds["Python's own modules" if is_standard else package] += int(microseconds) / 1e6
    return seconds

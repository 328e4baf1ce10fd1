"""Whether going on takes longer the more steps lie behind."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

import functions
from databases import Database
from figures import Figure, timed
from opened import opened

from durable_monty import OrchestratorService, Worker

_FOLDER = Path(__file__).parent
_WIDTH = 10
_CODE = """
from asyncio import gather
x = 0
for i in range(n // width):
    x = sum(await gather(*[add(x, 1) for _ in range(width)])) // width
await gate()
await begin(path)
x
"""
_EXECUTION_ID = "resumed"
_STOP_SECONDS = 0.0


@dataclass(frozen=True)
class Phases:
    """Seconds of a fresh process: its start and imports, then opening the service, then until the next call began."""

    importing: float
    opening: float
    resuming: float


def resume(database: Database, is_quick: bool) -> Iterator[Figure]:
    """A fresh process goes on with an execution whose last outcome came while nobody ran, until its next call begins.

    The history is made once, by a chain of gathers of ten calls (a plain chain would take minutes for nothing) and a call
    that is still running when the worker stops; each repetition works on a copy of that database.
    """
    for count, repeats in ((10, 2), (1000, 2)) if is_quick else ((10, 7), (1000, 7), (50_000, 7)):
        with tempfile.TemporaryDirectory(prefix="durable-monty-bench-") as folder:
            began = Path(folder) / "began"
            made = _suspended(database, count, began)
            runs, commits = [], []
            _resumed(database.copy(made), began)  # not counted: it compiles what it imports
            for _ in range(repeats):
                url = database.copy(made)
                commits.append(database.commit_seconds(url))
                runs.append(_resumed(url, began))
        commit_seconds = statistics.median(commits)
        name = f"resume after {count:,} steps"
        yield Figure(
            f"{name}, process start and imports", 1000 * statistics.median(run.importing for run in runs), "ms"
        )
        yield timed(f"{name}, opening the store", statistics.median(run.opening for run in runs), commit_seconds)
        yield timed(
            f"{name}, worker start to next call", statistics.median(run.resuming for run in runs), commit_seconds
        )


def _suspended(database: Database, count: int, began: Path) -> str:
    """A database with an execution that has made `count` steps and whose next outcome is there, undelivered."""
    url = database.new_url()
    functions.gate_reached.clear()
    functions.gate_opened.clear()
    with opened(url) as service:
        hosts = [functions.add, functions.gate, functions.begin]
        inputs = {"n": count, "width": _WIDTH, "path": str(began)}
        service.start_execution(_CODE, hosts, inputs, execution_id=_EXECUTION_ID)
        _run_to_gate(service)
        (call,) = service.get_pending_calls(_EXECUTION_ID)
        # Calls count from 0: the number of the one that waits tells how many lie behind.
        if call.call_id != count:
            raise RuntimeError(
                f"making a history of {count} steps: it has {call.call_id}; the figures would mean nothing"
            )
        service.complete_call(_EXECUTION_ID, call.call_id, None)
    return url


def _run_to_gate(service: OrchestratorService) -> None:
    """Work until `gate` runs, then stop without waiting for it: the call is given back."""
    worker = Worker(service)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        while not functions.gate_reached.wait(1.0):
            if not thread.is_alive():
                raise RuntimeError("making a history: the worker ended before it; see its traceback above")
    finally:
        worker.stop(_STOP_SECONDS)
        thread.join()
        functions.gate_opened.set()


def _resumed(url: str, began: Path) -> Phases:
    """The phases of a fresh process that takes up the execution."""
    began.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": f"{_FOLDER}{os.pathsep}{_FOLDER.parent}"}
    # Compiled modules are kept as on any machine, also where the caller's environment forbids it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(began.parent / "compiled")
    # The epoch's clock is the one that two processes share.
    started_at = time()
    command = [sys.executable, str(_FOLDER / "resumed.py"), url]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    imported_at, opened_at = map(float, done.stdout.split())
    began_at = float(began.read_text())
    return Phases(imported_at - started_at, opened_at - imported_at, began_at - opened_at)

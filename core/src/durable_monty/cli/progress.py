"""Working on an execution until it ends, and showing on a terminal how far it is."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from durable_monty.worker import Worker

if TYPE_CHECKING:
    from durable_monty.service import OrchestratorService

_SHOWN_EVERY_SECONDS = 0.5


def work_until_ended(service: OrchestratorService, execution_id: str) -> None:
    """Run a worker until this execution has ended or is paused, or until SIGINT or SIGTERM."""
    store = service.runtime.store

    def has_ended() -> bool:
        status = store.execution(execution_id).status
        return status.is_terminal or status == "paused"

    if has_ended():
        return
    worker = Worker(service, poll_interval=service.runtime.config.worker.poll_interval_seconds)
    spare_collector()
    with stopping_on_signals(worker, service.runtime.config.worker.stop_grace_seconds), _shown(service, execution_id):
        worker.run_until(has_ended)


def spare_collector() -> None:
    """Keep what has been imported out of garbage collections.

    Host functions that make many objects cause many collections, and each would look at everything that this process
    has imported: measured at a third of the time of a census of the standard library.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def stopping_on_signals(worker: Worker, grace_seconds: float) -> Iterator[None]:
    """Stop the worker in an orderly way at SIGTERM and SIGINT; a second signal ends the process at once."""

    def stop(number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        worker.stop(grace_seconds)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _shown(service: OrchestratorService, execution_id: str) -> Iterator[None]:
    """Show on a terminal how many calls have been made and have ended."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("calls"),
        TimeElapsedColumn(),
    )
    done = threading.Event()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(execution_id)

        def watch() -> None:
            while not done.wait(_SHOWN_EVERY_SECONDS):
                counts = service.runtime.store.count_calls(execution_id)
                ended = counts.get("completed", 0) + counts.get("failed", 0) + counts.get("cancelled", 0)
                progress.update(task, total=sum(counts.values()) or None, completed=ended)

        thread = threading.Thread(target=watch, name="durable-monty-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(1.0)

"""What an execution that waits takes in the database."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import functions
from databases import Database
from figures import Figure
from opened import opened
from throughput import THREE_STEPS

from durable_monty import OrchestratorService


def size(database: Database, is_quick: bool) -> Iterator[Figure]:
    """The snapshot as it is stored, and how much the database grows with each execution that waits for its first call.

    The growth is everything: the execution's row, its call, its snapshot, their indexes, and rows that are dead by now.
    """
    count = 100 if is_quick else 1000
    url = database.new_url()
    with opened(url) as service:
        _suspend(service)  # the tables' first pages and the workflow's source are there once
        before_bytes = database.used_bytes(url)
        waiting = [_suspend(service) for _ in range(count)]
        growth_bytes = database.used_bytes(url) - before_bytes
        found = [service.runtime.store.snapshot(execution_id) for execution_id in waiting]
    snapshots = [len(snapshot.data) for snapshot in found if snapshot is not None]
    if len(snapshots) != count:
        raise RuntimeError(
            f"suspending {count} executions: {len(snapshots)} have a snapshot; these figures mean nothing"
        )
    yield Figure("suspended execution, its snapshot", statistics.median(snapshots), "bytes")
    yield Figure(f"suspended execution, database growth over {count:,}", growth_bytes / count, "bytes")


def _suspend(service: OrchestratorService) -> str:
    execution_id = service.start_execution(THREE_STEPS, [functions.add])
    service.process_execution(execution_id)
    return execution_id

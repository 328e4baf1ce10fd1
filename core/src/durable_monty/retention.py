"""Retention: executions that ended long ago are archived and deleted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path

from durable_monty.archive import Archive
from durable_monty.durations import checked_seconds
from durable_monty.runtime import Runtime
from durable_monty.store import Store
from durable_monty.store.retention import ENDED, MAX_EXECUTIONS


class Retaining:
    """The methods of `OrchestratorService` about executions that ended long ago."""

    runtime: Runtime

    def delete_ended(
        self,
        older_than_seconds: float,
        *,
        statuses: Collection[str] | None = None,
        archive: Path | str | None = None,
        limit: int | None = None,
        deleted: Callable[[int], None] = lambda count: None,
    ) -> int:
        """Delete executions that ended longer ago than this, the oldest first, with their calls, tags and signals.

        What lives is never touched, nor a child whose living parent has not got its result yet. Small batches, a
        transaction each: workers go on meanwhile. A process that is killed in between loses nothing; called again, it
        goes on.

        Args:
            statuses: Only those that ended like this: `completed`, `failed`, `cancelled`; None: all.
            archive: A file that gets a line of JSON for each before it is deleted, see `durable_monty.archive`. An
                execution whose deletion was prevented by a kill is in it twice.
            limit: Most executions to delete; None: all.
            deleted: Called after each batch with how many were deleted so far.

        Returns:
            How many were deleted.

        Raises:
            ValueError: The age or the limit cannot be, or a status is none of an execution that has ended.
            OSError: The archive cannot be written; what is not in it is not deleted.
        """
        before, chosen = self._chosen("deleting ended executions", older_than_seconds, statuses)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ValueError(f"deleting ended executions: limit is {limit!r}; it must be at least 1, or None")
        total = 0
        with Archive(archive) if archive is not None else nullcontext() as file:
            while limit is None or total < limit:
                most = MAX_EXECUTIONS if limit is None else limit - total
                count = delete_batch(self.runtime.store, before, chosen, most, file)
                if count is None:
                    break
                total += count
                deleted(total)
        return total

    def count_ended(self, older_than_seconds: float, *, statuses: Collection[str] | None = None) -> int:
        """How many executions `delete_ended` would delete; raises as it does."""
        return self.runtime.store.retention.count(
            *self._chosen("counting ended executions", older_than_seconds, statuses)
        )

    def _chosen(
        self, doing: str, older_than_seconds: float, statuses: Collection[str] | None
    ) -> tuple[float, Collection[str]]:
        age = checked_seconds(doing, "older_than_seconds", older_than_seconds, allow_zero=True)
        if isinstance(statuses, str):
            statuses = [statuses]
        unknown = sorted({str(status) for status in statuses or ()} - set(ENDED))
        if unknown:
            raise ValueError(
                f"{doing}: an execution that has ended is not {unknown[0]!r}; the statuses are {', '.join(ENDED)}"
            )
        # The clock's resolution must not decide whether what has just ended is older than nothing.
        before = self.runtime.clock() - age if age else float("inf")
        return before, ENDED if statuses is None else [str(status) for status in statuses]


def delete_batch(
    store: Store, before: float, statuses: Collection[str], limit: int, archive: Archive | None
) -> int | None:
    """Archive and delete one batch.

    Returns:
        How many were deleted; None if there are no more that can be.
    """
    keys = store.retention.batch(before, statuses, limit)
    if archive is not None and keys:
        ended = store.retention.read(keys)
        archive.add(ended)
        keys = [item.key for item in ended]
    count = store.retention.delete(keys) if keys else 0
    # Nothing of a whole batch: others are at it.
    return count or None

"""What workers clean up now and then."""

from __future__ import annotations

import logging

from durable_monty.config import RetentionTable
from durable_monty.retention import delete_batch
from durable_monty.store import Store
from durable_monty.store.retention import MAX_EXECUTIONS

log = logging.getLogger(__name__)


class Cleaner:
    """Deletes executions as `[retention]` says: one batch at a look, so that other work does not wait for it."""

    def __init__(self, store: Store, settings: RetentionTable) -> None:
        self._store = store
        self._settings = settings
        self._clean_at = 0.0

    def clean(self, now: float) -> int:
        """Delete a batch, if it is time; returns how many executions were deleted."""
        age = self._settings.delete_after_seconds
        if age is None or now < self._clean_at:
            return 0
        count = delete_batch(self._store, now - age, self._settings.statuses, MAX_EXECUTIONS, None) or 0
        if count:
            log.info("ended executions deleted", extra={"executions": count})
        else:
            self._clean_at = now + self._settings.interval_seconds
        return count

"""The lease of one process on what it has claimed, and the death of others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from durable_monty.identity import is_dead_here, new_identity
from durable_monty.records import DueCall, WorkerIdentity
from durable_monty.store import Store


class Lease:
    """Kept alive by `renew`; every claim of this process is made under `worker`.

    Args:
        seconds: How long others wait for a sign of life before they take over.
        clock: The time, in seconds since the epoch.
    """

    def __init__(self, store: Store, seconds: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = clock
        self._identity: WorkerIdentity = new_identity()
        self._renew_at = 0.0
        self._look_at = 0.0
        self._lock = threading.Lock()

    @property
    def worker(self) -> str:
        """The id under which this process claims."""
        return self._identity.id

    @property
    def renew_at(self) -> float:
        """When it has to be renewed."""
        return self._renew_at

    def renew(self) -> None:
        """Renew it if a third of its time has passed."""
        with self._lock:
            now = self._clock()
            if now < self._renew_at:
                return
            self._store.clock.ask()
            now = self._clock()
            if self._identity.pid != os.getpid():
                # The parent goes on under the old name.
                self._identity = new_identity()
            self._store.register(self._identity, now + self._seconds)
            self._renew_at = now + self._seconds / 3

    def end(self) -> None:
        """Let it lapse now, so that others take over what is left at once."""
        with self._lock:
            self._store.register(self._identity, 0.0)
            self._renew_at = 0.0

    def take_over(self) -> list[DueCall]:
        """Free what dead workers held; their open jobs are this worker's from now on.

        Looks at other workers at most three times per lease; the first time at once.
        """
        now = self._clock()
        if now < self._look_at:
            return []
        self._look_at = now + self._seconds / 3
        jobs: list[DueCall] = []
        for identity, lease_until in self._store.list_workers():
            if identity.id == self.worker or (lease_until > now and not is_dead_here(identity)):
                continue
            jobs += self._store.take_over(identity.id, lease_until, self.worker, now) or []
        return jobs

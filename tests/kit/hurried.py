"""The kit with little patience, for executors that answer in no time."""

from __future__ import annotations

from durable_monty.testing import ExecutorSuite
from kit.reference import MACHINES, Reference, Volatile


class ReferenceSuite(ExecutorSuite):
    """The kit, in a hurry."""

    __test__ = False
    patience_seconds = 1.0
    pause_seconds = 0.12
    timeout_seconds = 0.05
    largest_batch = 5
    open_jobs = 50
    requests_per_hook = 2
    kind: type[Reference] = Reference
    folder: str

    def build(self):
        return self.kind(self.kind.Settings(folder=self.folder))

    def make_unreachable(self):
        return self.kind(self.kind.Settings(folder="/nowhere")) if not issubclass(self.kind, Volatile) else None

    def kill_remote(self, job):
        MACHINES[self.folder].kill(job.job_id)

    def requests_made(self):
        return MACHINES[self.folder].requests if self.folder in MACHINES else 0

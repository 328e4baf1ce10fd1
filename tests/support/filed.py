"""An executor whose back end is a folder: it outlives the worker, and every path through the core is taken.

It answers with a token, refuses each call once, takes two calls at a time, and never runs a job again that it has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from durable_monty import remote
from durable_monty.hookspecs import hookimpl
from durable_monty.models import Accepted, Capabilities, Outcome, Refused


class Filed:
    """See above.

    Args:
        passed: Called with the name of each hook of the worker's main thread when it is done.
    """

    capabilities = Capabilities(
        caller_ids=True, survives_restart=True, max_in_flight=2, max_batch=2, poll_interval_seconds=0.005
    )

    def __init__(self, folder: Path, passed: Callable[[str], None]) -> None:
        self._folder = folder
        self._passed = passed

    @hookimpl
    def submit(self, calls):
        answers = [self._submit(call) for call in calls]
        self._passed("submit")
        return answers

    @hookimpl
    def poll(self, jobs, wait_seconds):
        outcomes = []
        for job in jobs:
            # Completed meanwhile: no news.
            with contextlib.suppress(FileNotFoundError):
                outcomes.append(Outcome(job.job_id, reply=(self._folder / f"{job.job_id}.reply").read_bytes()))
        return outcomes

    @hookimpl
    def complete(self, jobs):
        for job in jobs:
            (self._folder / f"{job.job_id}.reply").unlink(missing_ok=True)
        self._passed("complete")

    def _submit(self, call):
        refused, known = self._folder / f"{call.job_id}.refused", self._folder / f"{call.job_id}.known"
        if not refused.exists():
            refused.touch()
            return Refused(call.job_id, "not yet", 0.01)
        if not known.exists():
            reply = self._folder / f"{call.job_id}.reply"
            # In one step, or a part of it might be read.
            reply.with_suffix(".new").write_bytes(remote.run(call.envelope))
            known.touch()
            reply.with_suffix(".new").rename(reply)
        return Accepted(call.job_id, token=f"at {self._folder.name}")

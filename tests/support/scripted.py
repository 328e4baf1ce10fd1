"""An executor that misbehaves on request."""

from __future__ import annotations

from durable_monty import remote
from durable_monty.hookspecs import hookimpl
from durable_monty.models import Accepted, Capabilities, Outcome


class Scripted:
    """Runs each call when it is submitted. Each hook first does what its script says next: raise, or answer this.

    Args:
        scripts: By hook, exceptions to raise and functions to call instead of the usual.
    """

    capabilities = Capabilities(survives_restart=True, poll_interval_seconds=0.01)

    def __init__(self, **scripts):
        self._scripts = {hook: list(items) for hook, items in scripts.items()}
        self._outcomes = []
        self.submitted = []
        self.completed = []

    @hookimpl
    def start(self, context):
        self._next("start")

    @hookimpl
    def submit(self, calls):
        self.submitted += [call.job_id for call in calls]
        if (answer := self._next("submit")) is not None:
            return answer(calls)
        self._outcomes += [Outcome(call.job_id, reply=remote.run(call.envelope)) for call in calls]
        return [Accepted(call.job_id) for call in calls]

    @hookimpl
    def poll(self, jobs, wait_seconds):
        if (answer := self._next("poll")) is not None:
            return answer(jobs)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    @hookimpl
    def complete(self, jobs):
        self.completed.append([job.job_id for job in jobs])
        self._next("complete")

    def _next(self, hook):
        script = self._scripts.get(hook)
        if not script:
            return None
        item = script.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

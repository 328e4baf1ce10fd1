"""A base class for the small executor that a user writes in a script.

    class MyExecutor(Executor):
        def submit_call(self, call):
            my_queue.put(call.envelope)

        def get_stats(self):
            return {}

    Worker(service, executor=MyExecutor()).run()

Results come in through `service.complete_call(...)` and `service.fail_call(...)`. A plug-in that is to be installed and
named in a configuration implements the hooks of `durable_monty.hookspecs` instead.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from durable_monty.hookspecs import hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Job, Outcome, Refused

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1.0


class Executor(ABC):
    """The hooks, on top of `submit_call` and `get_stats`."""

    capabilities = Capabilities(pushes=True, survives_restart=True)

    @abstractmethod
    def submit_call(self, call: Call) -> str | None:
        """Start one call and return at once.

        Returns:
            A token by which the work can be found again, or None.

        Raises:
            Exception: Anything: the call stays pending and is submitted again.
        """

    @abstractmethod
    def get_stats(self) -> dict[str, Any]:
        """Figures for people."""

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Submit one by one, so that one that fails does not hold up the others."""
        return [self._submit(call) for call in calls]

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome]:
        """No news: outcomes come in through the service."""
        return []

    @hookimpl  # noqa: B027 - not every executor has something to forget
    def complete(self, jobs: Sequence[Job]) -> None:
        """Nothing to forget."""

    @hookimpl
    def stats(self) -> dict[str, int | float]:
        """`get_stats`."""
        return self.get_stats()

    def _submit(self, call: Call) -> Accepted | Refused:
        try:
            token = self.submit_call(call)
        except Exception as error:
            log.warning("submitting a call failed, it stays pending", extra={"job_id": call.job_id}, exc_info=error)
            return Refused(call.job_id, f"{type(error).__name__}: {error}", RETRY_AFTER_SECONDS)
        return Accepted(call.job_id, token if isinstance(token, str) else None)


class DuckExecutor(Executor):
    """Any object that has `submit_call` and `get_stats`, as an executor."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.capabilities = getattr(inner, "capabilities", Executor.capabilities)

    def submit_call(self, call: Call) -> str | None:
        """See `Executor.submit_call`."""
        token: str | None = self._inner.submit_call(call)
        return token

    def get_stats(self) -> dict[str, Any]:
        """See `Executor.get_stats`."""
        stats: dict[str, Any] = self._inner.get_stats()
        return stats

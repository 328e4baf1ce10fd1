"""An executor as the core calls it: typed, with neutral answers for the hooks that its plug-in does not implement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pluggy

from durable_monty.errors import PluginError
from durable_monty.hookspecs import ExecutorContext
from durable_monty.models import Accepted, Call, Capabilities, Finding, Heartbeat, Job, Outcome, Refused


class LoadedExecutor:
    """One configured executor.

    Attributes:
        name: Its name in the configuration.
        plugin: The name of its plug-in, or of its class if it was handed over as an object.
    """

    def __init__(self, name: str, plugin: str, implementation: Any, manager: pluggy.PluginManager) -> None:
        self.name = name
        self.plugin = plugin
        self.implementation = implementation
        self._hook: Any = manager.hook

    def __repr__(self) -> str:
        return f"<executor {self.name} ({self.plugin})>"

    @property
    def capabilities(self) -> Capabilities:
        """What it declares; the defaults if it declares nothing."""
        declared = getattr(self.implementation, "capabilities", None)
        return declared if isinstance(declared, Capabilities) else Capabilities()

    def has(self, hook: str) -> bool:
        """Whether the plug-in implements an optional hook."""
        return bool(getattr(self._hook, hook).get_hookimpls())

    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """See `ExecutorSpec.submit`."""
        return self._checked("submit", self._hook.submit(calls=calls), (Accepted, Refused))

    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome | Heartbeat]:
        """See `ExecutorSpec.poll`."""
        return self._checked("poll", self._hook.poll(jobs=jobs, wait_seconds=wait_seconds), (Outcome, Heartbeat))

    def complete(self, jobs: Sequence[Job]) -> None:
        """See `ExecutorSpec.complete`."""
        self._hook.complete(jobs=jobs)

    def start(self, context: ExecutorContext) -> None:
        """See `ExecutorSpec.start`."""
        self._hook.start(context=context)

    def stop(self, grace_seconds: float) -> None:
        """See `ExecutorSpec.stop`."""
        self._hook.stop(grace_seconds=grace_seconds)

    def check(self) -> list[Finding]:
        """See `ExecutorSpec.check`; what it raises is a finding."""
        if not self.has("check"):
            return [Finding("info", f"the plug-in {self.plugin!r} has no check of its own")]
        try:
            return self._checked("check", self._hook.check(), (Finding,))
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            return [Finding("error", f"its check failed: {type(error).__name__}: {error}", "see the plug-in's page")]

    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """See `ExecutorSpec.cancel`."""
        return dict(self._hook.cancel(jobs=jobs, force=force) or {})

    def find(self, jobs: Sequence[Job]) -> dict[str, Literal["known", "absent", "unknown"]]:
        """See `ExecutorSpec.find`."""
        return dict(self._hook.find(jobs=jobs) or {})

    def stats(self) -> dict[str, int | float]:
        """See `ExecutorSpec.stats`."""
        return dict(self._hook.stats() or {})

    def _checked(self, hook: str, answers: Any, kinds: tuple[type, ...]) -> list[Any]:
        """The answers, after a look at their types: a plug-in's mistake is to be found where it is made."""
        if answers is None:
            return []
        for answer in answers:
            if not isinstance(answer, kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise PluginError(
                    f"executor {self.name!r}: the hook {hook!r} of plug-in {self.plugin!r} returned {answer!r:.100}; "
                    f"every item must be a {wanted}"
                )
        return list(answers)

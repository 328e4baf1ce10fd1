"""What the database and this configuration show about everything that lives, asked for once while causes are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from durable_monty import plugins
from durable_monty.errors import ConfigError, PluginError
from durable_monty.interpreter import SandboxError
from durable_monty.limits import Limit
from durable_monty.models import Finding
from durable_monty.runtime import Runtime
from durable_monty.sealing import SnapshotRefused, unseal
from durable_monty.store.examining import KnownWorker, LastFailure, Living, LivingCall


class Facts:
    """What is asked for once, however many executions it concerns.

    Args:
        checks: Whether executors are asked whether they can work.
    """

    def __init__(self, runtime: Runtime, after_seconds: float, waiting_seconds: float, *, checks: bool) -> None:
        self._runtime = runtime
        self._checks = checks
        self._store = runtime.store.examining
        self.now = runtime.clock()
        self.late = self.now - after_seconds
        self.long_ago = self.now - waiting_seconds
        self.workers = {worker.id: worker for worker in self._store.workers()}
        self.in_work = self._store.in_work()
        self.failures: dict[tuple[str, str, int, str], LastFailure] = {}
        self.signals: dict[str, list[str]] = {}
        self._problems: dict[str, str | None] = {}
        self._limits: dict[str, tuple[Limit, list[str]]] = {}
        self._unreadable: dict[tuple[str, int], str | None] = {}

    def read(self, page: Sequence[Living]) -> None:
        """Read what is to be said about calls of these executions."""
        retried = _having(page, lambda call: call.is_open and call.attempt > 1)
        waiting = _having(page, lambda call: call.kind == "signal" and call.is_open)
        self.failures = self._store.last_failures(retried) if retried else {}
        self.signals = self._store.unread_signals(waiting) if waiting else {}

    @property
    def has_worker(self) -> bool:
        """Whether any worker is alive."""
        return any(self.is_alive(name) for name in self.workers)

    @property
    def alive(self) -> int:
        """How many workers are alive."""
        return sum(self.is_alive(name) for name in self.workers)

    def is_alive(self, worker: str | None) -> bool:
        """Whether this worker has a lease that holds."""
        known = self.workers.get(worker or "")
        return known is not None and known.lease_until > self.now

    def worker(self, name: str | None) -> KnownWorker | None:
        """What is known about a worker."""
        return self.workers.get(name or "")

    def last_failure(self, living: Living, call: LivingCall) -> LastFailure | None:
        """How an attempt before this one ended; None: there was none, or nothing is recorded of it."""
        return self.failures.get((living.id, call.function, call.line, call.status))

    def problem(self, executor: str) -> str | None:
        """Why an executor cannot work as this configuration has it; None: nothing is known against it."""
        if executor not in self._problems:
            self._problems[executor] = self._problem(executor)
        return self._problems[executor]

    def limit(self, key: str) -> tuple[Limit, list[str]]:
        """A limit, and some of the calls that occupy it."""
        if key not in self._limits:
            self._limits[key] = (Limit.of(self._store.limit_policy(key)), self._store.holders(key))
        return self._limits[key]

    @property
    def monty_version(self) -> str:
        """The Monty that is installed here."""
        return self._runtime.interpreter.monty_version

    def unreadable(self, living: Living) -> str | None:
        """Why the Monty here cannot load the execution's snapshot; None: it can, or that is not the question."""
        if living.monty_version is None or living.format is None:
            return None
        key = (living.monty_version, living.format)
        if key not in self._unreadable:
            self._unreadable[key] = self._try_to_load(living.id)
        return self._unreadable[key]

    def _problem(self, executor: str) -> str | None:
        config = self._runtime.config
        try:
            plugin, options = config.plugin_of(executor)
            loaded = plugins.load(executor, plugin, options)
            findings = loaded.check() if self._checks else []
        except (PluginError, ConfigError) as error:
            findings = [Finding("error", str(error))]
        errors = [item for item in findings if item.level == "error"]
        return "; ".join(item.message for item in errors) or None

    def _try_to_load(self, execution_id: str) -> str | None:
        runtime = self._runtime
        row = runtime.store.execution(execution_id)
        snapshot = runtime.store.snapshot(execution_id)
        if snapshot is None or row.status.is_terminal:
            return None
        try:
            state = unseal(execution_id, row.version, snapshot, runtime.config.signing_key)
        except SnapshotRefused:
            # It may just have moved on; and this says nothing about others of the same format.
            return None
        workflow = runtime.store.workflow(row.workflow)
        session = runtime.interpreter.open(workflow.functions, lambda offset: 0, execution_id)
        try:
            session.load(state)
        except SandboxError as error:
            return str(error)
        finally:
            session.close()
        return None


def _having(page: Iterable[Living], wanted: Callable[[LivingCall], bool]) -> list[str]:
    return [living.id for living in page if any(wanted(call) for call in living.calls)]

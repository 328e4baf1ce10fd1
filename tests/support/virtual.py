"""Executions moved on in virtual time, by an engine that may be dropped at any moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from durable_monty import OrchestratorService, Store, codec
from durable_monty.config import Config
from durable_monty.interpreter import Interpreter
from durable_monty.models import CallStatus, ExecutionStatus, Failure
from durable_monty.records import CallKind, Settlement
from durable_monty.store import failure_text
from support.shapes import Shape, leaf, step

MOST_EVENTS = 500


class Virtual:
    """One process after the other on one database; host functions take the time that they say.

    Args:
        interpreter: Shared by all of them, because starting a sandbox takes longer than all the rest.
    """

    def __init__(self, store: Store, interpreter: Interpreter) -> None:
        self.now = 0.0
        self._store = store
        self._interpreter = interpreter
        self._begin()

    def run(self, shape: Shape, execution_id: str, crash: Callable[[], str]) -> Any:
        """What the workflow returns.

        Args:
            crash: Asked before and after each event: `""`, `"crash"`, or `"rebuild"`, which also loses the snapshots.
        """
        start, family = self.now, f"{execution_id}%"
        self._service.start_execution(
            shape.source + "\nawait main()", [step], {"LEAF": "leaf"}, execution_id=execution_id, check=False,
            workflows=[leaf],
        )  # fmt: skip
        signals = sorted((start + at, name) for at, name in shape.signals)
        for _ in range(MOST_EVENTS):
            self._advance(crash, family)
            row = self._store.execution(execution_id)
            if row.status.is_terminal:
                self._finish_family(family)
                assert row.status is ExecutionStatus.COMPLETED, row.error
                return codec.loads(row.output)
            due = self._due(family)
            times = [at for at, _ in due] + [at for at, _ in signals[:1]]
            self.now = min([*times, *self._wake_times()])
            self._crash(crash(), family)
            if signals and signals[0][0] <= self.now:
                at, name = signals.pop(0)
                self._service.signal(execution_id, name, f"sent at {at - start:.6f}")
            self._settle([item for at, item in due if at <= self.now])
        raise AssertionError("it does not come to an end")

    def _begin(self) -> None:
        self._service = OrchestratorService(self._store, Config.model_validate({"interpreter": {"processes": 3}}))
        runtime = self._service.runtime
        runtime.clock = runtime.engine._clock = runtime.lease._clock = lambda: self.now
        runtime.interpreter = runtime.engine._turns._interpreter = self._interpreter
        runtime.has_worker = True
        runtime.lease.renew()

    def _crash(self, how: str, family: str) -> None:
        """Lose everything in memory; another process takes over."""
        if not how:
            return
        dead = self._service.runtime.lease.worker
        self._service.runtime.engine.forget_all()
        if how == "rebuild":
            with self._store._connections.write() as connection:
                connection.execute(
                    text("DELETE FROM snapshots WHERE execution_id LIKE :family").bindparams(family=family)
                )
        self._begin()
        for identity, lease_until in self._store.list_workers():
            if identity.id == dead:
                self._store.take_over(dead, lease_until, self._service.runtime.lease.worker, self.now)

    def _advance(self, crash: Callable[[], str], family: str) -> None:
        """Until there is nothing to do at this time."""
        self._crash(crash(), family)
        engine = self._service.runtime.engine
        while True:
            while self._store.survey(self._service.runtime.lease.worker, self.now).has_execution:
                engine.advance_due()
            engine.close_children()
            # Cleanup takes no time.
            at_once = [item for at, item in self._due(family) if at <= self.now]
            if not at_once:
                break
            self._settle(at_once)

    def _settle(self, items: list[Settlement]) -> None:
        if items:
            self._service.runtime.engine.advance(items)

    def _wake_times(self) -> list[float]:
        query = text("SELECT min(wake_at) FROM executions WHERE status IN ('scheduled', 'running', 'waiting')")
        with self._store._connections.read() as connection:
            wake_at = connection.scalar(query)
        return [] if wake_at is None else [wake_at]

    def _due(self, family: str) -> list[tuple[float, Settlement]]:
        """When open calls of host functions end, and how."""
        query = text(
            "SELECT c.execution_id, c.call_id, c.arguments, c.created_at FROM calls c"
            " JOIN executions e ON e.id = c.execution_id WHERE c.execution_id LIKE :family"
            f" AND c.kind = '{CallKind.FUNCTION}' AND c.status IN ('pending', 'submitting', 'submitted')"
            " AND e.status IN ('scheduled', 'running', 'waiting') ORDER BY c.execution_id, c.call_id"
        ).bindparams(family=family)
        with self._store._connections.read() as connection:
            rows = connection.execute(query).all()
        return [(row.created_at + _seconds(row.arguments), self._outcome(*row)) for row in rows]

    def _outcome(self, execution_id: str, call_id: int, arguments: str, _created_at: float) -> Settlement:
        (name, _, *ok), _ = codec.loads(arguments)
        if all(ok):
            return Settlement(execution_id, call_id, 1, CallStatus.COMPLETED, codec.dumps(name), self.now)
        failure = failure_text(Failure("user", "ValueError", name, bases=("Exception",)))
        return Settlement(execution_id, call_id, 1, CallStatus.FAILED, failure, self.now)

    def _finish_family(self, family: str) -> None:
        """End children that nobody waits for, so that they are not in the way of the next workflow."""
        with self._store._connections.write() as connection:
            connection.execute(
                text("UPDATE executions SET status = 'cancelled', wake_at = NULL WHERE id LIKE :family AND parent IS NOT NULL")
                .bindparams(family=family)
            )  # fmt: skip
        self._service.runtime.engine.forget_all()


def _seconds(arguments: str) -> float:
    return float(codec.loads(arguments)[0][1])

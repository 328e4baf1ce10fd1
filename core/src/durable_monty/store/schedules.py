"""Schedules in the database: who fires one is settled by its row, in the transaction that starts the execution."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, or_, select, update

from durable_monty.records import ExecutionRow, WorkflowRecord
from durable_monty.store.connections import Connections
from durable_monty.store.notices import insert_or_ignore, tell
from durable_monty.store.rows import execution_values
from durable_monty.store.schema import executions, schedules
from durable_monty.store.starting import LIVING, save_workflow
from durable_monty.store.vault import Vault, vault_of
from durable_monty.texts import is_storable

_MOST_FIRED = 50


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule.

    Attributes:
        workflow: The digest of its workflow.
        time_input: The input that gets the time for which an execution is started, or None.
        overlap: What happens while the last execution lives: `skip`, `queue` or `cancel`.
        next_at: When it fires next; None: never again.
        last_at: The last time for which it has fired.
        queued: Times for which executions are still to be started, the oldest first.
    """

    name: str
    workflow: str
    inputs: str
    time_input: str | None
    cron: str | None
    timezone: str
    interval_seconds: float | None
    overlap: str
    is_paused: bool
    created_at: float
    next_at: float | None
    last_at: float | None = None
    last_execution: str | None = None
    queued: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Firing:
    """What becomes of a schedule at one look.

    Attributes:
        execution: The execution to be started, or None.
    """

    next_at: float | None
    last_at: float | None
    queued: tuple[float, ...]
    execution: ExecutionRow | None = None


class Schedules:
    """Keeps schedules; each method is one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def create(self, row: ScheduleRow, workflow: WorkflowRecord, checked_at: float | None) -> ScheduleRow | None:
        """Store a schedule and its workflow.

        Returns:
            None, or the schedule that has this name already; then nothing was stored.
        """
        with self._connections.write() as connection:
            query = select(schedules).where(schedules.c.name == row.name)
            statement = (
                insert_or_ignore(connection, schedules)
                .values(_values(row, vault_of(connection)))
                .returning(schedules.c.name)
            )
            if connection.execute(statement).first() is None:
                return _row(connection.execute(query).mappings().one(), vault_of(connection))
            save_workflow(connection, workflow, checked_at)
            tell(connection)
        return None

    def get(self, name: str) -> ScheduleRow | None:
        """One schedule, or None."""
        if not is_storable(name):
            return None
        with self._connections.read() as connection:
            row = connection.execute(select(schedules).where(schedules.c.name == name)).mappings().first()
        return _row(row, self._connections.vault) if row is not None else None

    def all(self) -> list[ScheduleRow]:
        """Every schedule, by name."""
        with self._connections.read() as connection:
            rows = connection.execute(select(schedules).order_by(schedules.c.name)).mappings()
            return [_row(row, self._connections.vault) for row in rows]

    def set_paused(self, name: str, *, is_paused: bool, next_at: float | None) -> bool:
        """Pause or resume a schedule; returns whether there is one of this name."""
        statement = update(schedules).where(schedules.c.name == name, schedules.c.is_paused != int(is_paused))
        with self._connections.write() as connection:
            changed = connection.execute(statement.values(is_paused=int(is_paused), next_at=next_at)).rowcount
            tell(connection)
            query = select(schedules.c.name).where(schedules.c.name == name)
            return bool(changed) or connection.execute(query).first() is not None

    def delete(self, name: str) -> bool:
        """Delete a schedule, not its executions; returns whether there was one."""
        if not is_storable(name):
            return False
        with self._connections.write() as connection:
            return connection.execute(delete(schedules).where(schedules.c.name == name)).rowcount > 0

    def due(self, now: float) -> list[tuple[ScheduleRow, bool]]:
        """Schedules that fire now, or whose queue may move on, each with whether its last execution lives."""
        with self._connections.read() as connection:
            query = _due(now)
            return [
                (_row(row, self._connections.vault), bool(row["is_alive"]))
                for row in connection.execute(query).mappings()
            ]

    def is_queueing(self) -> bool:
        """Whether some schedule waits for the end of its last execution."""
        query = select(schedules.c.name).where(schedules.c.queued != "[]", schedules.c.is_paused == 0).limit(1)
        with self._connections.read() as connection:
            return connection.execute(query).first() is not None

    def fire(self, now: float, plan: Callable[[ScheduleRow, bool], Firing]) -> list[str]:
        """Let the schedules that are due start what is due; those that another worker is at are left to it.

        Args:
            plan: Decides, given a schedule and whether its last execution lives.

        Returns:
            The ids of the executions that were started.
        """
        started = []
        with self._connections.write() as connection:
            query = _due(now).with_for_update(skip_locked=True, of=schedules)
            for row in connection.execute(query).mappings().all():
                schedule = _row(row, self._connections.vault)
                # Read anew: the row is locked now, but what another worker did to it a moment ago may have started
                # an execution that the query above could not see.
                lives = select(executions.c.id).where(
                    executions.c.id == schedule.last_execution, executions.c.status.in_(LIVING)
                )
                firing = plan(schedule, connection.execute(lives).first() is not None)
                values: dict[str, Any] = {
                    "next_at": firing.next_at,
                    "last_at": firing.last_at,
                    "queued": json.dumps(firing.queued),
                }
                if firing.execution is not None:
                    started += _start(connection, [firing.execution])
                    values["last_execution"] = firing.execution.id
                connection.execute(update(schedules).where(schedules.c.name == schedule.name).values(values))
        return started

    def backfill(self, name: str, started: Sequence[ExecutionRow], queued: Sequence[float]) -> list[str]:
        """Start these executions, and put these times into the schedule's queue.

        Returns:
            The ids of the executions that did not exist before.
        """
        with self._connections.write() as connection:
            query = select(schedules.c.queued).where(schedules.c.name == name).with_for_update()
            found = connection.scalar(query)
            if found is not None and queued:
                times = sorted({*json.loads(found), *queued})
                connection.execute(update(schedules).where(schedules.c.name == name).values(queued=json.dumps(times)))
                tell(connection)
            return _start(connection, started)

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of these executions that there are."""
        with self._connections.read() as connection:
            found: set[str] = set()
            for start in range(0, len(ids), 500):
                query = select(executions.c.id).where(executions.c.id.in_(list(ids[start : start + 500])))
                found.update(connection.scalars(query))
        return found


def _due(now: float) -> Any:
    lives: ColumnElement[bool] = (
        select(executions.c.id)
        .where(executions.c.id == schedules.c.last_execution, executions.c.status.in_(LIVING))
        .correlate(schedules)
        .exists()
    )
    # As `durable_monty.store.survey` has it.
    is_due = or_(schedules.c.next_at <= now, (schedules.c.queued != "[]") & ~lives)
    query = select(schedules, lives.label("is_alive")).where(schedules.c.is_paused == 0, is_due)
    return query.order_by(schedules.c.next_at).limit(_MOST_FIRED)


def _start(connection: Connection, rows: Sequence[ExecutionRow]) -> list[str]:
    """Store executions that do not exist yet; returns their ids."""
    started = []
    for row in rows:
        statement = insert_or_ignore(connection, executions).values(execution_values(row, vault_of(connection)))
        if connection.execute(statement.returning(executions.c.id)).first() is not None:
            started.append(row.id)
    if started:
        tell(connection)
    return started


def _values(row: ScheduleRow, vault: Vault) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    values["inputs"] = vault.hide(row.inputs, "schedule", row.name)
    return {**values, "is_paused": int(row.is_paused), "queued": json.dumps(row.queued)}


def _row(row: RowMapping, vault: Vault) -> ScheduleRow:
    values = {field.name: row[field.name] for field in dataclasses.fields(ScheduleRow)}
    values["inputs"] = vault.show(values["inputs"], "schedule", values["name"])
    values["is_paused"] = bool(values["is_paused"])
    values["queued"] = tuple(json.loads(values["queued"]))
    return ScheduleRow(**values)

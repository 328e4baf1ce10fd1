"""Deleting executions that ended long ago, in batches that are over quickly."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from durable_monty.models import ExecutionStatus
from durable_monty.store.connections import Connections
from durable_monty.store.schema import attempts, calls, executions, tags, workflows
from durable_monty.store.starting import forget, is_awaited
from durable_monty.store.vault import failure_of, vault_of

ENDED = tuple(status.value for status in ExecutionStatus if status.is_terminal)
"""Statuses of executions that have ended."""

MAX_EXECUTIONS = 200
"""Most executions in one transaction."""

_MAX_CALLS = 10_000


@dataclass(frozen=True, slots=True)
class Ended:
    """An execution that has ended, with all that is stored about it.

    Attributes:
        execution: Its row; likewise the others.
    """

    execution: Mapping[str, Any]
    workflow: Mapping[str, Any]
    calls: Sequence[Mapping[str, Any]]
    attempts: Sequence[Mapping[str, Any]]
    tags: Mapping[str, str]

    @property
    def key(self) -> tuple[str, float]:
        """Its id and when it ended: what has been started anew under the id since then has another."""
        return self.execution["id"], self.execution["ended_at"]


class Retention:
    """Finds, reads and deletes executions that have ended."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def count(self, before: float, statuses: Collection[str]) -> int:
        """How many executions ended before this time and may be deleted."""
        query = select(func.count()).select_from(executions).where(*_deletable(before, statuses))
        with self._connections.read() as connection:
            return int(connection.scalar(query) or 0)

    def batch(self, before: float, statuses: Collection[str], limit: int) -> list[tuple[str, float]]:
        """Executions that ended before this time, the oldest first: as many as one transaction may delete.

        Returns:
            Their ids and when they ended; fewer than `limit` if they have many calls, but at least one if there is one.
        """
        with self._connections.read() as connection:
            found = [(row.id, row.ended_at) for row in connection.execute(_batch(before, statuses, limit))]
            ids = [execution_id for execution_id, _ in found]
            query = select(calls.c.execution_id, func.count()).where(calls.c.execution_id.in_(ids))
            counts = {row[0]: row[1] for row in connection.execute(query.group_by(calls.c.execution_id))}
        total = 0
        for position, execution_id in enumerate(ids):
            total += counts.get(execution_id, 0)
            if total > _MAX_CALLS and position:
                return found[:position]
        return found

    def read(self, keys: Sequence[tuple[str, float]]) -> list[Ended]:
        """All that is stored about these executions; what is not there any more is left out."""
        with self._connections.read() as connection:
            return [ended for key in keys if (ended := _read(connection, *key)) is not None]

    def delete(self, keys: Sequence[tuple[str, float]]) -> int:
        """Delete these executions, as far as they have not been started anew since; returns how many."""
        wanted = dict(keys)
        query = select(executions.c.id, executions.c.ended_at).where(
            executions.c.id.in_(list(wanted)), executions.c.status.in_(ENDED), ~is_awaited()
        )
        with self._connections.write() as connection:
            rows = connection.execute(query.with_for_update(skip_locked=True)).all()
            ids = [row.id for row in rows if row.ended_at == wanted[row.id]]
            if ids:
                forget(connection, ids)
            return len(ids)


def _batch(before: float, statuses: Collection[str], limit: int) -> Select[Any]:
    query = select(executions.c.id, executions.c.ended_at).where(*_deletable(before, statuses))
    return query.order_by(executions.c.ended_at).limit(min(limit, MAX_EXECUTIONS))


def _deletable(before: float, statuses: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    return executions.c.ended_at < before, executions.c.status.in_(list(statuses)), ~is_awaited()


def _read(connection: Connection, execution_id: str, ended_at: float) -> Ended | None:
    chosen = select(executions).where(executions.c.id == execution_id, executions.c.ended_at == ended_at)
    row = connection.execute(chosen).mappings().first()
    if row is None:
        return None
    source = select(workflows.c.digest, workflows.c.name, workflows.c.filename, workflows.c.user_source)
    workflow = connection.execute(source.where(workflows.c.digest == row["workflow"])).mappings().one()
    vault = vault_of(connection)
    of_it: dict[str, list[dict[str, Any]]] = {}
    for table, order in ((calls, (calls.c.call_id,)), (attempts, (attempts.c.call_id, attempts.c.attempt))):
        found = connection.execute(select(table).where(table.c.execution_id == execution_id).order_by(*order))
        of_it[table.name] = [dict(item) for item in found.mappings()]
    found_tags = connection.execute(select(tags.c.name, tags.c.value).where(tags.c.execution_id == execution_id))
    execution = dict(row)
    vault.show_execution(execution)
    for call in of_it["calls"]:
        vault.show_call(execution_id, call)
    for item in of_it["attempts"]:
        item["failure"] = vault.show(item["failure"], failure_of(item["attempt"]), execution_id, item["call_id"])
    return Ended(
        execution, dict(workflow), of_it["calls"], of_it["attempts"], {item.name: item.value for item in found_tags}
    )

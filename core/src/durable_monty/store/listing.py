"""Finding executions: every page is one walk along an index, whatever is asked for and however deep it lies."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select, tuple_

from durable_monty.records import ExecutionRow
from durable_monty.store.connections import Connections
from durable_monty.store.fixed import THESE, Fixed
from durable_monty.store.rows import execution_row
from durable_monty.store.schema import executions, tags, workflows

_LIVING = Fixed(f"SELECT id FROM executions WHERE id IN {THESE} AND status IN ('scheduled', 'running', 'waiting')")
_TAGS = Fixed(f"SELECT execution_id, name, value FROM tags WHERE execution_id IN {THESE} ORDER BY execution_id, name")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which executions are asked for.

    Attributes:
        tags: Names and values, all of which it must have.
        workflow: A workflow's name, whatever its source.
        since: Created at this time or later.
        until: Created before this time.
        before: Created before this (time, id), where the previous page ended.
    """

    status: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    workflow: str | None = None
    since: float | None = None
    until: float | None = None
    before: tuple[float, str] | None = None


class Listing:
    """Lists executions and their tags."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def executions(self, chosen: Filter, limit: int) -> list[ExecutionRow]:
        """Executions, the newest first."""
        with self._connections.read() as connection:
            if chosen.workflow is None:
                rows = connection.execute(page_query(chosen, limit)).mappings().all()
                return [execution_row(row, self._connections.vault) for row in rows]
            # One walk per source that has had this name, because no index is ordered over several of them.
            named = select(workflows.c.digest).where(workflows.c.name == chosen.workflow)
            pages = [
                [
                    execution_row(row, self._connections.vault)
                    for row in connection.execute(page_query(chosen, limit, digest)).mappings()
                ]
                for digest in connection.scalars(named).all()
            ]
        merged = heapq.merge(*pages, key=lambda row: (row.created_at, row.id), reverse=True)
        return [row for row, _ in zip(merged, range(limit), strict=False)]

    def living(self, ids: Sequence[str]) -> set[str]:
        """Those of these executions that have not ended and are not paused."""
        with self._connections.read_at_once() as connection:
            return {row["id"] for row in _LIVING.mappings(connection, {"ids": json.dumps(list(ids))})}

    def tags(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The tags of each of these executions."""
        found: dict[str, dict[str, str]] = {execution_id: {} for execution_id in ids}
        with self._connections.read_at_once() as connection:
            for row in _TAGS.mappings(connection, {"ids": json.dumps(list(ids))}):
                found[row["execution_id"]][row["name"]] = row["value"]
        return found


def page_query(chosen: Filter, limit: int, digest: str | None = None) -> Select[Any]:
    """One page in the order of an index.

    With tags the walk is along the index of the first tag, which holds the executions' times too; else along one of
    those of the executions.

    Args:
        digest: The workflow, where the filter names one.
    """
    time, id_ = executions.c.created_at, executions.c.id
    query = select(executions)
    if chosen.tags:
        (name, value), *others = chosen.tags
        time, id_ = tags.c.created_at, tags.c.execution_id
        query = query.join(tags, tags.c.execution_id == executions.c.id).where(
            tags.c.name == name, tags.c.value == value
        )
        for other_name, other_value in others:
            other = tags.alias()
            has_it = select(other.c.value).where(
                other.c.execution_id == executions.c.id, other.c.name == other_name, other.c.value == other_value
            )
            query = query.where(has_it.correlate(executions).exists())
    if chosen.status is not None:
        query = query.where(executions.c.status == chosen.status)
    if digest is not None:
        query = query.where(executions.c.workflow == digest)
    if chosen.since is not None:
        query = query.where(time >= chosen.since)
    if chosen.until is not None:
        query = query.where(time < chosen.until)
    if chosen.before is not None:
        query = query.where(tuple_(time, id_) < tuple_(*chosen.before))
    return query.order_by(time.desc(), id_.desc()).limit(limit)

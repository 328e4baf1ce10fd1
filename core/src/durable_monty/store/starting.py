"""Storing new executions: who stands for a start, decided in the transaction that stores it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from durable_monty.errors import StoreError
from durable_monty.models import ExecutionStatus
from durable_monty.records import ExecutionRow, WorkflowRecord
from durable_monty.store.commit_postgresql import CHANNEL
from durable_monty.store.connections import Connections
from durable_monty.store.fixed import Fixed
from durable_monty.store.notices import insert_or_ignore, tell
from durable_monty.store.rows import EXECUTION_COLUMNS, execution_row, execution_values, workflow_values
from durable_monty.store.schema import OPEN_STATUSES, attempts, calls, executions, signals, snapshots, tags, workflows
from durable_monty.store.vault import vault_of

IdReuse = Literal["reject", "return", "restart"]
"""What to do with an execution id that is taken."""

LIVING = tuple(status.value for status in ExecutionStatus if not status.is_terminal)
"""Statuses of executions that have not ended; paused ones included."""

_MAX_TRIES = 20
_INSERT = Fixed(f"""
{{WITH new AS (|}} INSERT INTO executions ({", ".join(EXECUTION_COLUMNS)})
VALUES ({", ".join(f":{name}" for name in EXECUTION_COLUMNS)}) ON CONFLICT DO NOTHING RETURNING id
{{) SELECT id, pg_notify('{CHANNEL}', '') FROM new|}}
""")
_MOST_ROWS = 1000
_INSERT_MANY = Fixed(f"""
INSERT INTO executions ({", ".join(EXECUTION_COLUMNS)})
{{SELECT {", ".join(EXECUTION_COLUMNS)} FROM json_populate_recordset(NULL::executions, :rows)
|SELECT {", ".join(f"json_extract(value, '$.{name}')" for name in EXECUTION_COLUMNS)} FROM json_each(:rows) WHERE true}}
ON CONFLICT DO NOTHING RETURNING id
""")


@dataclass(frozen=True, slots=True)
class NewExecution:
    """An execution to be stored, with its workflow.

    Attributes:
        checked_at: When the workflow passed the check at submit; None: it was not asked for.
        id_reuse: `"restart"`: one of this id that has ended is replaced.
        children: The workflows that it may start as children.
    """

    row: ExecutionRow
    workflow: WorkflowRecord
    checked_at: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    id_reuse: IdReuse | None = None
    children: tuple[WorkflowRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """What stands for a start.

    Attributes:
        execution_id: The new execution, or a living one with its singleton or debounce key.
        existing: The execution that has had the id before; nothing was stored.
    """

    execution_id: str
    existing: ExecutionRow | None = None


class Starting:
    """Starts of one execution or of many, each one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        # Digests of workflows that are stored as they are to be.
        self._stored: set[str] = set()

    def start(self, new: NewExecution) -> Started:
        """Store an execution, unless its id is taken, or its key by one that stands for it."""
        workflows_ = {record.digest for record in (new.workflow, *new.children)}
        if not new.tags and workflows_ <= self._stored:
            with self._connections.write_at_once() as connection:
                if _insert(connection, new.row):
                    return Started(new.row.id)
        started = self._start(new)
        if started.existing is None and new.checked_at is not None:
            self._stored |= workflows_
        return started

    def start_all(
        self, news: Sequence[NewExecution], require_same: Callable[[ExecutionRow, ExecutionRow], None]
    ) -> None:
        """Store executions without keys, all of them or none; those whose id is taken are left as they are.

        Args:
            require_same: Given the execution that has an id and the one that was to have it; raises if that will not do.
        """
        with self._connections.write() as connection:
            for new in {new.row.workflow: new for new in news}.values():
                _save_workflows(connection, new)
            inserted: set[str] = set()
            for start in range(0, len(news), _MOST_ROWS):
                inserted |= _insert_many(connection, [new.row for new in news[start : start + _MOST_ROWS]])
            tagged: list[dict[str, Any]] = []
            for new in news:
                if new.row.id not in inserted:
                    existing = self._start_in(connection, new).existing
                    if existing is not None:
                        require_same(existing, new.row)
                    continue
                # The same id once more is to find this one.
                inserted.remove(new.row.id)
                tagged += _tag_rows(new.row.id, new.row.created_at, new.tags)
            _insert_tags(connection, tagged)
            tell(connection)

    def _start(self, new: NewExecution) -> Started:
        with self._connections.write() as connection:
            return self._start_in(connection, new)

    def _start_in(self, connection: Connection, new: NewExecution) -> Started:
        # Another process may store the same id or key between the look and the insert; then it is seen at the next look.
        for _ in range(_MAX_TRIES):
            started = _standing_for(connection, new) or _inserted(connection, new)
            if started is not None:
                return started
        raise StoreError(
            f"starting execution {new.row.id!r}: others have started and ended executions with its id or key "
            f"{_MAX_TRIES} times in a row; try again"
        )


def save_workflow(connection: Connection, record: WorkflowRecord, checked_at: float | None) -> None:
    """Store a workflow, if it is not there."""
    known = select(workflows.c.checked_at).where(workflows.c.digest == record.digest)
    found = connection.execute(known).first()
    if found is None:
        connection.execute(insert_or_ignore(connection, workflows).values(workflow_values(record, checked_at)))
    elif found.checked_at is None and checked_at is not None:
        connection.execute(update(workflows).where(workflows.c.digest == record.digest).values(checked_at=checked_at))


def forget(connection: Connection, ids: list[str]) -> None:
    """Delete executions with everything that hangs on them; their living children belong to nobody from now on."""
    connection.execute(
        update(executions)
        .where(executions.c.parent.in_(ids), executions.c.status.in_(LIVING))
        .values(parent=None, parent_call=None)
    )
    for table in (calls, snapshots, attempts, tags, signals):
        connection.execute(delete(table).where(table.c.execution_id.in_(ids)))
    connection.execute(delete(executions).where(executions.c.id.in_(ids)))


def is_awaited() -> ColumnElement[bool]:
    """Whether an execution is a child whose living parent has not got its end yet."""
    parents = executions.alias("parents")
    return (
        select(calls.c.call_id)
        .join(parents, parents.c.id == calls.c.execution_id)
        .where(
            calls.c.execution_id == executions.c.parent,
            calls.c.call_id == executions.c.parent_call,
            parents.c.status.in_(LIVING),
            calls.c.status.in_(OPEN_STATUSES) | calls.c.batch.is_(None),
        )
        .correlate(executions)
        .exists()
    )


def _standing_for(connection: Connection, new: NewExecution) -> Started | None:
    """What was found instead of starting anything; None: nothing is in the way any more."""
    row = new.row
    existing = _find(connection, executions.c.id == row.id)
    if existing is not None:
        awaited = select(executions.c.id).where(executions.c.id == row.id, is_awaited())
        is_replaced = (
            new.id_reuse == "restart" and existing.status.is_terminal and connection.execute(awaited).first() is None
        )
        if not is_replaced:
            return Started(row.id, existing)
        forget(connection, [row.id])
    if row.debounce_key is not None:
        found = _find(connection, executions.c.debounce_key == row.debounce_key, executions.c.status.in_(LIVING))
        if found is not None and _has_not_begun(found):
            _postpone(connection, found, new)
            return Started(found.id)
        if found is not None:
            # It has begun: the next execution with this key is another one.
            connection.execute(update(executions).where(executions.c.id == found.id).values(debounce_key=None))
    if row.singleton_key is not None:
        found = _find(connection, executions.c.singleton_key == row.singleton_key, executions.c.status.in_(LIVING))
        if found is not None:
            return Started(found.id)
    return None


def _has_not_begun(row: ExecutionRow) -> bool:
    return row.version == 0 and row.worker is None


def _postpone(connection: Connection, found: ExecutionRow, new: NewExecution) -> None:
    """Give an execution that has not begun what a later start asks for; a paused one stays paused."""
    _save_workflows(connection, new)
    vault = vault_of(connection)
    values: dict[str, Any] = {
        "workflow": new.row.workflow,
        "inputs": vault.hide(new.row.inputs, "inputs", found.id),
        "memo": vault.hide(new.row.memo, "memo", found.id),
        "deadline_at": new.row.deadline_at,
    }
    if found.status is ExecutionStatus.SCHEDULED:
        values["wake_at"] = new.row.wake_at
    connection.execute(update(executions).where(executions.c.id == found.id).values(values))
    connection.execute(delete(tags).where(tags.c.execution_id == found.id))
    _insert_tags(connection, _tag_rows(found.id, found.created_at, new.tags))
    tell(connection)


def _inserted(connection: Connection, new: NewExecution) -> Started | None:
    """The new execution; None: somebody has taken its id or its key a moment earlier."""
    _save_workflows(connection, new)
    if not _insert(connection, new.row):
        return None
    _insert_tags(connection, _tag_rows(new.row.id, new.row.created_at, new.tags))
    return Started(new.row.id)


def _insert(connection: Connection, row: ExecutionRow) -> bool:
    """Store an execution and tell workers, unless its id or one of its keys is taken."""
    return bool(_INSERT.mappings(connection, execution_values(row, vault_of(connection))))


def _insert_many(connection: Connection, rows: Sequence[ExecutionRow]) -> set[str]:
    """Store executions whose ids are not taken; returns the ids of these."""
    vault = vault_of(connection)
    values = json.dumps([execution_values(row, vault) for row in rows])
    return {row["id"] for row in _INSERT_MANY.mappings(connection, {"rows": values})}


def _save_workflows(connection: Connection, new: NewExecution) -> None:
    for record in (new.workflow, *new.children):
        save_workflow(connection, record, new.checked_at)


def _tag_rows(execution_id: str, created_at: float, values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"execution_id": execution_id, "name": name, "value": value, "created_at": created_at}
        for name, value in values.items()
    ]


def _insert_tags(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(tags), rows)


def _find(connection: Connection, *conditions: ColumnElement[bool]) -> ExecutionRow | None:
    query = select(executions).where(*conditions).with_for_update()
    row = connection.execute(query).mappings().first()
    return execution_row(row, vault_of(connection)) if row is not None else None

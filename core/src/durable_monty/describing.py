"""Executions as people see them, and which of them they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from durable_monty import codec
from durable_monty.models import ExecutionStatus
from durable_monty.records import ExecutionRow
from durable_monty.starts import checked_tags
from durable_monty.store import Store
from durable_monty.store.listing import Filter
from durable_monty.texts import is_storable, storable

MAX_LISTED = 10_000


def describe(store: Store, rows: Sequence[ExecutionRow], *, with_cursor: bool = False) -> list[dict[str, Any]]:
    """What `OrchestratorService.get_execution` says about each of these."""
    tags = store.listing.tags([row.id for row in rows])
    if with_cursor:
        # One that cannot be decrypted must not keep the others from being listed.
        rows = [_readable(row) for row in rows]
    described = [_describe(row, tags[row.id]) for row in rows]
    if with_cursor:
        for row, item in zip(rows, described, strict=True):
            item["cursor"] = f"{row.created_at!r}~{row.id}"
    return described


def filter_of(
    status: str | None,
    limit: int,
    tags: Mapping[str, str] | None,
    workflow: str | None,
    since: datetime | float | None,
    until: datetime | float | None,
    before: str | None,
) -> Filter:
    """What `list_executions` was asked for.

    Raises:
        ValueError: It cannot be asked for; the message says what to ask.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LISTED:
        raise ValueError(f"listing executions: limit is {limit!r}; it must be 1 to {MAX_LISTED}, ask for pages")
    return Filter(
        _status(status),
        tuple(sorted(checked_tags(tags, "listing executions").items())),
        None if workflow is None else storable(workflow),
        _time("since", since),
        _time("until", until),
        _position(before),
    )


def seconds_of(doing: str, name: str, time: datetime | float) -> float:
    """A time as seconds since the epoch.

    Raises:
        ValueError: It is a datetime without a time zone, or no time at all.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"{doing}: {name} is {time!r}, which has no time zone; add one, for example tzinfo=UTC")
        return time.timestamp()
    if isinstance(time, bool) or not isinstance(time, int | float) or not abs(time) < float("inf"):
        raise ValueError(f"{doing}: {name} is {time!r}; it must be an aware datetime or seconds since the epoch")
    return float(time)


def _readable(row: ExecutionRow) -> ExecutionRow:
    """The execution without what cannot be decrypted, which its note tells."""
    hidden = [text for text in (row.inputs, row.output, row.memo) if isinstance(text, codec.Unreadable)]
    if not hidden:
        return row
    return replace(row, inputs="null", output=None, memo=None, note=hidden[0].reason)


def _describe(row: ExecutionRow, tags: dict[str, str]) -> dict[str, Any]:
    return {
        "execution_id": row.id,
        "workflow": row.workflow,
        "status": row.status.value,
        "inputs": codec.loads(row.inputs),
        "output": codec.loads(row.output) if row.output is not None else None,
        "error": row.error,
        "note": row.note,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "deadline_at": row.deadline_at,
        "tags": tags,
        "memo": codec.loads(row.memo) if row.memo is not None else {},
        "schedule": row.schedule,
    }


def _status(status: str | None) -> str | None:
    if status is None:
        return None
    try:
        return ExecutionStatus(status).value
    except ValueError as error:
        known = ", ".join(item.value for item in ExecutionStatus)
        raise ValueError(f"listing executions: there is no status {status!r}; there are {known}") from error


def _time(name: str, time: datetime | float | None) -> float | None:
    return None if time is None else seconds_of("listing executions", name, time)


def _position(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    time, separator, execution_id = str(cursor).partition("~")
    try:
        if separator and is_storable(execution_id):
            return float(time), execution_id
    except ValueError:
        pass
    raise ValueError(
        f"listing executions: before is {cursor!r}, which is no cursor; pass the `cursor` of the last one of a page"
    )


def ended_how(row: ExecutionRow) -> str:
    """How an execution that has ended did, for a sentence."""
    return {"completed": "has completed", "failed": "failed", "cancelled": "was cancelled"}[row.status.value]

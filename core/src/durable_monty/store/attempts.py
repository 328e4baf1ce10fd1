"""Recording attempts that are not the last of their call."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from durable_monty.codec import check_readable
from durable_monty.models import CallStatus, Failure, job_id_of
from durable_monty.records import NextAttempt
from durable_monty.store.schema import OPEN_STATUSES, attempts, calls
from durable_monty.store.vault import failure_of, vault_of


def failure_text(failure: Failure) -> str:
    """A failure as it is stored."""
    return json.dumps(dataclasses.asdict(failure), separators=(",", ":"))


def read_failure(text: str) -> Failure:
    """A stored failure."""
    check_readable(text)
    values = json.loads(text)
    return Failure(**{**values, "bases": tuple(values.get("bases", ()))})


def cancelled_child(execution_id: str, reason: str) -> Failure:
    """What a parent sees of a child that was cancelled: an ordinary failure, because it was not cancelled itself."""
    return Failure("user", "RuntimeError", f"child {execution_id!r} was cancelled: {reason}", bases=("Exception",))


def record_attempts(connection: Connection, items: Sequence[NextAttempt]) -> frozenset[str]:
    """Move calls to their next attempt; see `Store.reattempt`."""
    late = []
    for item in items:
        next_attempt = (
            update(calls)
            .where(
                calls.c.execution_id == item.execution_id,
                calls.c.call_id == item.call_id,
                calls.c.attempt == item.attempt,
                calls.c.status.in_(OPEN_STATUSES),
            )
            .values(
                status=CallStatus.PENDING.value,
                attempt=item.attempt + 1,
                lost=calls.c.lost + item.lost,
                worker=None,
                token=None,
                due_at=item.due_at,
                expires_at=item.expires_at,
            )
        )
        if connection.execute(next_attempt).rowcount == 0:
            late.append(job_id_of(item.execution_id, item.call_id, item.attempt))
        else:
            record_attempt(connection, item)
    return frozenset(late)


def record_attempt(connection: Connection, item: NextAttempt) -> None:
    """Keep what became of an attempt; the first report of it counts."""
    key = (
        (attempts.c.execution_id == item.execution_id)
        & (attempts.c.call_id == item.call_id)
        & (attempts.c.attempt == item.attempt)
    )
    if connection.execute(select(attempts.c.attempt).where(key)).first() is None:
        connection.execute(
            insert(attempts).values(
                execution_id=item.execution_id,
                call_id=item.call_id,
                attempt=item.attempt,
                ended_at=item.ended_at,
                failure=vault_of(connection).hide(
                    failure_text(item.failure), failure_of(item.attempt), item.execution_id, item.call_id
                ),
            )
        )

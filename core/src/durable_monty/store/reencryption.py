"""Rewriting what is stored with the current key, so that an earlier one can be thrown away.

Row by row, each compared with what was read: what a worker writes meanwhile, it writes with its own current key. Killed
at any moment, the next run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, select, tuple_, update

from durable_monty.codec import Unreadable
from durable_monty.errors import PayloadUnreadable
from durable_monty.records import Snapshot
from durable_monty.store.connections import Connections
from durable_monty.store.schema import attempts, calls, executions, schedules, signals, snapshots
from durable_monty.store.vault import OF_CALL, OF_EXECUTION, PREFIX, Vault, failure_of

_ROWS = 200


@dataclass(frozen=True, slots=True)
class _Texts:
    """Columns of a table that hold encrypted texts, and the place that a column's text is bound to."""

    table: Table
    columns: tuple[str, ...]
    place: Callable[[RowMapping, str], tuple[Any, ...]]


_TEXTS = (
    _Texts(executions, OF_EXECUTION, lambda row, name: (name, row["id"])),
    _Texts(calls, OF_CALL, lambda row, name: (name, row["execution_id"], row["call_id"])),
    _Texts(
        attempts,
        ("failure",),
        lambda row, _: (failure_of(row["attempt"]), row["execution_id"], row["call_id"]),
    ),
    _Texts(signals, ("payload",), lambda row, _: ("signal", row["execution_id"], row["name"])),
    _Texts(schedules, ("inputs",), lambda row, _: ("schedule", row["name"])),
)


def reencrypt(connections: Connections, *, is_plain: bool = False) -> Iterator[int]:
    """Rewrite everything that is not encrypted with the current key, a small transaction at a time.

    Args:
        is_plain: Decrypt it instead.

    Yields:
        How many rows of each transaction were rewritten.

    Raises:
        PayloadUnreadable: Something cannot be decrypted with the keys that there are; it stays as it is.
    """
    target = Vault()
    vault = connections.vault
    if not is_plain and vault.cipher is not None:
        target.use(vault.cipher, vault.name)
    for texts in _TEXTS:
        yield from _walk(connections, texts.table, partial(_texts, of=texts, vault=vault, target=target))
    yield from _walk(connections, snapshots, partial(_snapshot, vault=vault, target=target))


def _walk(connections: Connections, table: Table, rewrite: Callable[[Connection, RowMapping], bool]) -> Iterator[int]:
    """Go through a table in the order of its key."""
    key = list(table.primary_key.columns)
    last: tuple[Any, ...] | None = None
    while True:
        query = select(table).order_by(*key).limit(_ROWS)
        if last is not None:
            query = query.where(tuple_(*key) > tuple_(*last))
        with connections.read() as connection:
            rows = connection.execute(query).mappings().all()
        if not rows:
            return
        with connections.write(is_quiet=True) as connection:
            rewritten = sum(rewrite(connection, row) for row in rows)
        # Not inside: whoever asks for the next may take his time.
        yield rewritten
        last = tuple(rows[-1][column.name] for column in key)


def _texts(connection: Connection, row: RowMapping, of: _Texts, vault: Vault, target: Vault) -> bool:
    values = {}
    for name in of.columns:
        text = row[name]
        if text is None or (text.startswith(target.header) if target.header else not text.startswith(PREFIX)):
            continue
        place = of.place(row, name)
        shown = vault.show(text, *place)
        if isinstance(shown, Unreadable):
            raise PayloadUnreadable(shown.reason)
        values[name] = target.hide(shown, *place)
    return _replaced(connection, of.table, row, values)


def _snapshot(connection: Connection, row: RowMapping, vault: Vault, target: Vault) -> bool:
    data = bytes(row["snapshot"])
    is_hidden = data.startswith(PREFIX.encode())
    if data.startswith(target.header.encode()) if target.header else not is_hidden:
        return False
    id_ = row["execution_id"]
    stored = Snapshot(row["version"], row["monty_version"], row["format"], bytes(row["digest"]), data)
    shown = vault.show_snapshot(id_, stored)
    if is_hidden and shown is stored:
        # Whoever loads it rebuilds the execution from its log, which is readable by now.
        return False
    hidden = target.hide_snapshot(id_, shown)
    return _replaced(connection, snapshots, row, {"snapshot": hidden.data, "digest": hidden.digest})


def _replaced(connection: Connection, table: Table, row: RowMapping, values: dict[str, Any]) -> bool:
    """Write values, unless somebody has written others since they were read."""
    if not values:
        return False
    same = [column == row[column.name] for column in table.primary_key.columns]
    same += [table.c[name] == row[name] for name in values]
    return connection.execute(update(table).where(*same).values(values)).rowcount > 0

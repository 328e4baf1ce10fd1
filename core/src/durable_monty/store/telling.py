"""Reading what executions have published and emitted."""

from __future__ import annotations

from sqlalchemy import func, select

from durable_monty.records import CallKind
from durable_monty.store.connections import Connections
from durable_monty.store.schema import calls
from durable_monty.store.steering import Find
from durable_monty.texts import is_storable


class Telling:
    """What outsiders read; disturbs nobody."""

    def __init__(self, connections: Connections, find: Find) -> None:
        self._connections = connections
        self._find = find

    def published(self, execution_id: str, key: str | None = None) -> dict[str, str]:
        """The last value of each key that an execution has published, as the codec's text of `[[key, value], {}]`.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        if not is_storable(key or ""):
            return {}
        of = (calls.c.execution_id == execution_id) & (calls.c.kind == CallKind.PUBLISH.value)
        if key is not None:
            of &= calls.c.function == key
        last = select(func.max(calls.c.call_id)).where(of).group_by(calls.c.function)
        query = select(calls.c.call_id, calls.c.function, calls.c.arguments).where(of, calls.c.call_id.in_(last))
        show = self._connections.vault.show
        with self._connections.read() as connection:
            self._find(connection, execution_id)
            return {
                row.function: show(row.arguments, "arguments", execution_id, row.call_id)
                for row in connection.execute(query)
            }

    def emitted(self, execution_id: str, stream: str, offset: int, limit: int) -> list[str]:
        """Items of a stream from an offset on, each as the codec's text of `[[stream, value], {}]`.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        if not is_storable(stream):
            return []
        query = (
            select(calls.c.call_id, calls.c.arguments)
            .where(calls.c.execution_id == execution_id, calls.c.kind == CallKind.EMIT.value)
            .where(calls.c.function == stream)
            .order_by(calls.c.call_id)
            .offset(offset)
            .limit(limit)
        )
        show = self._connections.vault.show
        with self._connections.read() as connection:
            self._find(connection, execution_id)
            rows = connection.execute(query)
            return [show(row.arguments, "arguments", execution_id, row.call_id) for row in rows]

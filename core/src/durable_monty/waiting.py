"""What an execution waits for, in words for people and tests."""

from __future__ import annotations

from dataclasses import dataclass

from durable_monty.records import CallKind, CallRow
from durable_monty.store import Store


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that an execution waits for.

    Attributes:
        kind: `function`, `timer`, `signal` or `child`.
        name: The dotted path of the function, the name of the signal, the id of the child, or empty for a timer.
        line: Where it stands in the user's file; 0 inside a helper.
        due_at: When the wait ends by itself, in seconds since the epoch; None: never.
        attempt: Of a function: which attempt it is; 1 otherwise.
    """

    kind: str
    name: str
    line: int
    due_at: float | None
    attempt: int = 1

    def __str__(self) -> str:
        where = f" at line {self.line}" if self.line else ""
        what = {"timer": "a timer", "signal": f"signal {self.name!r}", "child": f"child {self.name!r}"}
        return what.get(self.kind, f"{self.name}()") + where


def waits_of(store: Store, execution_id: str) -> list[Wait]:
    """What an execution waits for, in the order in which it began to; nothing once it has ended.

    Raises:
        ExecutionNotFound: No execution has this id.
    """
    if store.execution(execution_id).status.is_terminal:
        return []
    rows = [row for row in store.calls(execution_id) if not row.status.is_terminal and row.kind is not CallKind.CHANNEL]
    children = store.children_by_call(execution_id) if any(row.kind is CallKind.CHILD for row in rows) else {}
    return [_wait(row, children) for row in rows]


def _wait(row: CallRow, children: dict[int, str]) -> Wait:
    if row.kind is CallKind.FUNCTION:
        return Wait("function", row.function, row.line, row.expires_at, row.attempt)
    if row.kind is CallKind.TIMER:
        return Wait("timer", "", row.line, row.due_at)
    if row.kind is CallKind.CHILD:
        return Wait("child", children.get(row.call_id, row.function), row.line, None)
    return Wait("signal" if row.kind is CallKind.SIGNAL else row.kind.value, row.function, row.line, row.due_at)

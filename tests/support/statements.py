"""Seeing every statement that the store runs, whichever way it takes to the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from durable_monty.store.fixed import Fixed


def before_each_statement(engine: Any, seen: Callable[[str], object]) -> Callable[[], None]:
    """Call `seen` with each statement before it is run; returns what ends that.

    Args:
        engine: One engine, or the class: all of this process. `Fixed` statements are seen on every engine.
    """

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen(" ".join(statement.split()))

    original = Fixed.mappings

    def mappings(self: Fixed, connection: Any, parameters: Any) -> Any:
        seen(self.text(connection))
        return original(self, connection, parameters)

    event.listen(engine, "before_cursor_execute", listen)
    Fixed.mappings = mappings  # type: ignore[method-assign]

    def end() -> None:
        event.remove(engine, "before_cursor_execute", listen)
        Fixed.mappings = original  # type: ignore[method-assign]

    return end

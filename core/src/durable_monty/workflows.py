"""Declaring a workflow: an `async def` function whose source is taken into the sandbox.

The same function runs as ordinary Python, `await order(...)`, for unit tests. Standard library only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

from durable_monty.errors import WorkflowSourceError
from durable_monty.functions import workflow_mode

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A workflow; made by `@workflow`.

    Calling it outside the engine runs the plain function under asyncio: host functions and the helpers of
    `durable_monty.flow` then do in this process what they do durably in the engine.
    """

    def __init__(self, wrapped: Callable[P, Coroutine[Any, Any, R]]) -> None:
        if not inspect.iscoroutinefunction(wrapped):
            raise WorkflowSourceError(
                f"declaring workflow {getattr(wrapped, '__name__', wrapped)!r}: it is not an `async def` function; "
                "a workflow awaits its host functions"
            )
        self.__wrapped__ = wrapped
        functools.update_wrapper(self, wrapped)
        self.name: str = wrapped.__name__
        self.prepared: Any = None
        """What `durable_monty.program` has made of it, kept for the next start."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the workflow as ordinary Python, without durability: for unit tests."""
        token = workflow_mode.set(True)
        try:
            return await self.__wrapped__(*args, **kwargs)
        finally:
            workflow_mode.reset(token)

    def __repr__(self) -> str:
        return f"<workflow {self.__wrapped__.__module__}.{self.__wrapped__.__qualname__}>"


def workflow(wrapped: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]:
    """Declare a workflow.

    Its source is taken when it is started: the function, and of its module what it uses: undecorated functions,
    literal constants, and imports of what the sandbox has.

    Raises:
        WorkflowSourceError: It is not an `async def` function.
    """
    return Workflow(wrapped)

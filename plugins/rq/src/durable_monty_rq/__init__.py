"""The RQ executor of durable-monty: host functions run by the workers of Redis Queue.

`durable_monty_rq.remote` is what a `rq worker` imports; it needs neither pydantic nor pluggy, so nothing here imports
them before an executor is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_monty_rq.executor import Executor, RQExecutor
    from durable_monty_rq.settings import RQSettings

__all__ = ["Executor", "RQExecutor", "RQSettings"]


def __getattr__(name: str) -> Any:
    if name in ("Executor", "RQExecutor"):
        from durable_monty_rq import executor

        return getattr(executor, name)
    if name == "RQSettings":
        from durable_monty_rq.settings import RQSettings

        return RQSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

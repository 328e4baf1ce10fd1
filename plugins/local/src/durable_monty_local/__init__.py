"""The local executor of durable-monty: host functions run in the worker, in threads, processes or on an event loop."""

from __future__ import annotations

from durable_monty_local.executor import Executor, LocalExecutor, LocalSettings

__all__ = ["Executor", "LocalExecutor", "LocalSettings"]

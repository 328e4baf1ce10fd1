"""Executor plug-in for durable-monty: processes on another machine, over SSH."""

from typing import Any


def __getattr__(name: str) -> Any:
    # The machine runs `durable_monty_ssh.host` and need not have pydantic, so nothing is imported before it is asked for.
    if name in ("Executor", "SSHSettings"):
        from durable_monty_ssh import executor

        return getattr(executor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The Modal executor of durable-monty: host functions run by Modal.

`durable_monty_modal.remote` is what runs there; it needs neither pydantic nor pluggy, and nothing here imports the
`modal` client before an executor or an app is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_monty_modal.executor import Executor, ModalExecutor
    from durable_monty_modal.settings import ModalSettings

__all__ = ["Executor", "ModalExecutor", "ModalSettings"]


def __getattr__(name: str) -> Any:
    if name in ("Executor", "ModalExecutor"):
        from durable_monty_modal import executor

        return getattr(executor, name)
    if name == "ModalSettings":
        from durable_monty_modal.settings import ModalSettings

        return ModalSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

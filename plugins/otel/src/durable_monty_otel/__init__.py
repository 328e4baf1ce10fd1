"""Traces and metrics of durable-monty by OpenTelemetry.

`continue_trace` and `traced` are for host functions, on whatever machine they run: they need `durable-monty-core` without
its dependencies and `opentelemetry-api`, so nothing here imports anything else before the observer is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_monty_otel.functions import continue_trace, traced
    from durable_monty_otel.observer import Observer
    from durable_monty_otel.settings import OtelSettings

__all__ = ["Observer", "OtelSettings", "continue_trace", "traced"]


def __getattr__(name: str) -> Any:
    if name in ("continue_trace", "traced"):
        from durable_monty_otel import functions

        return getattr(functions, name)
    if name == "Observer":
        from durable_monty_otel.observer import Observer

        return Observer
    if name == "OtelSettings":
        from durable_monty_otel.settings import OtelSettings

        return OtelSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

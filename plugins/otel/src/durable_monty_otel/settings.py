"""`[observers.otel]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class OtelSettings(BaseModel):
    """Table `[observers.otel]`. Where spans and metrics go is said by OpenTelemetry's own configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    traces: bool = Field(True, description="Make spans, and send a trace context along with each call.")
    metrics: bool = Field(True, description="Count and measure.")
    failure_messages: bool = Field(
        False, description="Put the messages of failures into spans; functions may have put values into them."
    )
    namespace: str = Field(
        "",
        description="Keeps the traces of databases apart that have executions of the same id; the same on every worker.",
    )

"""The observer that `observe = ["otel"]` names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import metrics, trace

from durable_monty.observerspecs import (
    CallRetried,
    CallSettled,
    CallSubmitted,
    ExecutionEnded,
    ExecutionStarted,
    ExecutionSuspended,
    SignalReceived,
    StartingCall,
    WorkerInfo,
    hookimpl,
)
from durable_monty_otel.ids import Ids
from durable_monty_otel.metrics import Metrics
from durable_monty_otel.settings import OtelSettings
from durable_monty_otel.spans import Spans

log = logging.getLogger(__name__)

SCOPE = "durable_monty"
_FLUSH_MILLISECONDS = 3_000


class Observer:
    """Turns what it is told into spans and metrics.

    Args:
        settings: `[observers.otel]`; None: its defaults.
        tracer_provider: Where spans go; None: the global provider, as it is when this is made.
        meter_provider: Likewise for metrics.
    """

    Settings = OtelSettings

    def __init__(
        self,
        settings: OtelSettings | None = None,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        chosen = settings or OtelSettings()
        self._providers: list[Any] = []
        self._spans: Spans | None = None
        self._metrics: Metrics | None = None
        if chosen.traces:
            tracing = tracer_provider or trace.get_tracer_provider()
            self._providers.append(tracing)
            ids = Ids(chosen.namespace)
            self._spans = Spans(tracing.get_tracer(SCOPE), ids, has_messages=chosen.failure_messages)
        if chosen.metrics:
            measuring = meter_provider or metrics.get_meter_provider()
            self._providers.append(measuring)
            self._metrics = Metrics(measuring.get_meter(SCOPE))
        if not any(hasattr(provider, "force_flush") for provider in self._providers):
            log.warning(
                "OpenTelemetry is not set up in this process, spans and metrics go nowhere; start it with "
                "`opentelemetry-instrument`, or set providers before the worker runs"
            )

    @hookimpl
    def worker_started(self, worker: WorkerInfo) -> None:
        """Measure its open jobs from now on."""
        if self._metrics is not None:
            self._metrics.begin(worker)

    @hookimpl
    def worker_stopped(self, worker: WorkerInfo) -> None:
        """Send what is still here; the process may end now."""
        for provider in self._providers:
            if hasattr(provider, "force_flush"):
                provider.force_flush(_FLUSH_MILLISECONDS)
        if self._metrics is not None:
            self._metrics.end(worker)

    @hookimpl
    def executions_started(self, executions: Sequence[ExecutionStarted]) -> None:
        """Count them."""
        for execution in executions:
            if self._metrics is not None:
                self._metrics.started(execution)

    @hookimpl
    def executions_suspended(self, executions: Sequence[ExecutionSuspended]) -> None:
        """Count them."""
        for execution in executions:
            if self._metrics is not None:
                self._metrics.suspended(execution)

    @hookimpl
    def executions_ended(self, executions: Sequence[ExecutionEnded]) -> None:
        """Make their spans."""
        for execution in executions:
            if self._metrics is not None:
                self._metrics.ended(execution)
            if self._spans is not None:
                self._spans.ended(execution)

    @hookimpl
    def calls_submitted(self, calls: Sequence[CallSubmitted]) -> None:
        """Remember when."""
        for call in calls:
            if self._metrics is not None:
                self._metrics.submitted(call)
            if self._spans is not None:
                self._spans.submitted(call)

    @hookimpl
    def calls_settled(self, calls: Sequence[CallSettled]) -> None:
        """Make their spans."""
        for call in calls:
            if self._metrics is not None:
                self._metrics.settled(call)
            if self._spans is not None:
                self._spans.settled(call)

    @hookimpl
    def calls_retried(self, calls: Sequence[CallRetried]) -> None:
        """Make the spans of the attempts that failed."""
        for call in calls:
            if self._metrics is not None:
                self._metrics.retried(call)
            if self._spans is not None:
                self._spans.retried(call)

    @hookimpl
    def signals_received(self, signals: Sequence[SignalReceived]) -> None:
        """Count them."""
        for signal in signals:
            if self._metrics is not None:
                self._metrics.signalled(signal)

    @hookimpl
    def trace_contexts(self, calls: Sequence[StartingCall]) -> Mapping[str, str]:
        """The span of each attempt, for what its function does."""
        if self._spans is None:
            return {}
        return {call.job_id: self._spans.trace_context(call) for call in calls}

"""What is counted and measured. All names begin with `durable_monty.`; durations are in seconds."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from durable_monty.observerspecs import (
    CallRetried,
    CallSettled,
    CallSubmitted,
    ExecutionEnded,
    ExecutionStarted,
    ExecutionSuspended,
    SignalReceived,
    WorkerInfo,
)

_DURATIONS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
    900,
    3600,
    6 * 3600,
    86400,
    7 * 86400,
)

# Those of this process: an instrument asks only the callback it was made with first.
_working: list[WorkerInfo] = []


class Metrics:
    """The instruments of one worker; those of several workers of one process are the same."""

    def __init__(self, meter: Meter) -> None:
        self._started = meter.create_counter(
            "durable_monty.executions.started", "{execution}", "Executions that began."
        )
        self._suspended = meter.create_counter(
            "durable_monty.executions.suspended", "{suspension}", "Turns after which an execution waits."
        )
        self._ended = meter.create_counter(
            "durable_monty.executions.ended", "{execution}", "Executions by how they ended."
        )
        self._execution = _durations(meter, "durable_monty.execution.duration", "From the start to the end.")
        self._execution_wait = _durations(meter, "durable_monty.execution.wait", "From being stored to the first turn.")
        self._submitted = meter.create_counter("durable_monty.calls.submitted", "{attempt}", "Attempts that began.")
        self._submit_wait = _durations(meter, "durable_monty.call.wait", "From the call to its first attempt.")
        self._settled = meter.create_counter("durable_monty.calls.ended", "{call}", "Calls by how they ended.")
        self._call = _durations(
            meter, "durable_monty.call.duration", "From the call to its outcome, all attempts included."
        )
        self._retried = meter.create_counter(
            "durable_monty.calls.retried", "{attempt}", "Failed attempts that are followed by another."
        )
        self._signals = meter.create_counter(
            "durable_monty.signals.received", "{signal}", "Signals that workflows got."
        )
        meter.create_observable_gauge(
            "durable_monty.jobs.open", [_open_jobs], "{job}", "Attempts that are at an executor now."
        )
        meter.create_observable_counter(
            "durable_monty.observers.dropped", [_dropped], "{fact}", "Facts that observers were too slow for."
        )

    def begin(self, worker: WorkerInfo) -> None:
        """A worker whose open jobs are to be measured."""
        _working.append(worker)

    def end(self, worker: WorkerInfo) -> None:
        """A worker that ends."""
        if worker in _working:
            _working.remove(worker)

    def started(self, execution: ExecutionStarted) -> None:
        """Count it."""
        kind = {"durable_monty.workflow": execution.workflow}
        self._started.add(1, kind)
        self._execution_wait.record(max(execution.at - execution.created_at, 0.0), kind)

    def suspended(self, execution: ExecutionSuspended) -> None:
        """Count it."""
        self._suspended.add(1, {"durable_monty.workflow": execution.workflow})

    def ended(self, execution: ExecutionEnded) -> None:
        """Count it."""
        kind = {"durable_monty.workflow": execution.workflow, "durable_monty.execution.status": execution.status.value}
        if execution.error_type is not None:
            kind["error.type"] = execution.error_type
        self._ended.add(1, kind)
        self._execution.record(max(execution.at - (execution.started_at or execution.created_at), 0.0), kind)

    def submitted(self, call: CallSubmitted) -> None:
        """Count it."""
        kind = _of_call(call)
        self._submitted.add(1, kind)
        if call.attempt == 1:
            self._submit_wait.record(max(call.at - call.created_at, 0.0), kind)

    def settled(self, call: CallSettled) -> None:
        """Count it."""
        kind = {**_of_call(call), "durable_monty.call.status": call.status.value}
        if call.failure is not None:
            kind["durable_monty.failure.kind"] = call.failure.kind
        self._settled.add(1, kind)
        self._call.record(max(call.at - call.created_at, 0.0), kind)

    def retried(self, call: CallRetried) -> None:
        """Count it."""
        self._retried.add(1, {**_of_call(call), "durable_monty.failure.kind": call.failure.kind})

    def signalled(self, signal: SignalReceived) -> None:
        """Count it; names of signals may be without number."""
        self._signals.add(1)


def _durations(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_DURATIONS)


def _of_call(call: CallSubmitted | CallSettled | CallRetried) -> dict[str, str]:
    kind = {"code.function.name": call.function}
    if call.executor is not None:
        kind["durable_monty.executor"] = call.executor
    return kind


def _open_jobs(_options: CallbackOptions) -> Iterable[Observation]:
    counts: dict[str, int] = {}
    for worker in _working:
        for executor, count in worker.open_jobs().items():
            counts[executor] = counts.get(executor, 0) + count
    return [Observation(count, {"durable_monty.executor": executor}) for executor, count in counts.items()]


def _dropped(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(sum(worker.dropped() for worker in list(_working)))]

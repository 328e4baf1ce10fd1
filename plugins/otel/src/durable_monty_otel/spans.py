"""Spans of executions, calls and attempts, each made when it has ended, with the times that it had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from durable_monty.models import CallStatus, ExecutionStatus, Failure
from durable_monty.observerspecs import CallEvent, CallRetried, CallSettled, CallSubmitted, ExecutionEnded
from durable_monty_otel.ids import GivenIds, Ids

MAX_REMEMBERED = 100_000
"""Attempts whose begin is remembered; older ones are taken to have begun with their call."""

Attributes = Mapping[str, str | int | float | bool]


class Spans:
    """Makes the spans.

    Args:
        has_messages: Whether messages of failures go into them.
    """

    def __init__(self, tracer: Tracer, ids: Ids, *, has_messages: bool = False) -> None:
        self._tracer = tracer
        self._ids = ids
        self._has_messages = has_messages
        self._submitted_at: dict[str, float] = {}
        # Of the tracer of our own scope, which nobody else uses and all observers of a process share. A tracer that is not
        # the SDK's makes ids of its own: then all spans are in the right trace, but below one that nobody has made.
        self._given = GivenIds()
        self._gives_ids = isinstance(tracer, SdkTracer)
        if isinstance(tracer, SdkTracer):
            if isinstance(tracer.id_generator, GivenIds):
                self._given = tracer.id_generator
            tracer.id_generator = self._given

    def trace_context(self, call: CallEvent) -> str:
        """Where what a function does belongs: below the span of its attempt."""
        trace, span = self._ids.trace(call.execution_id), self._ids.attempt(call.job_id)
        return f"00-{trace:032x}-{span:016x}-{self._flags(trace):02x}"

    def submitted(self, call: CallSubmitted) -> None:
        """Remember when an attempt began."""
        if len(self._submitted_at) >= MAX_REMEMBERED:
            del self._submitted_at[next(iter(self._submitted_at))]
        self._submitted_at[call.job_id] = call.at

    def retried(self, call: CallRetried) -> None:
        """An attempt that failed."""
        self._attempt(call, CallStatus.FAILED, call.failure)

    def settled(self, call: CallSettled) -> None:
        """The last attempt of a call, and the call."""
        self._attempt(call, call.status, call.failure)
        self._make(
            f"call {call.function}",
            call.execution_id,
            self._ids.call(call.execution_id, call.call_id),
            self._ids.execution(call.execution_id),
            (call.created_at, call.at),
            {
                **_of_call(call),
                "durable_monty.call.status": call.status.value,
                "durable_monty.call.attempts": call.attempt,
            },
            self._failed(call.status, call.failure),
        )

    def ended(self, execution: ExecutionEnded) -> None:
        """An execution; one that has a parent is a span in the parent's trace as well, and both are linked."""
        attributes = _of_execution(execution)
        failure = None
        if execution.status is ExecutionStatus.FAILED:
            failure = Status(StatusCode.ERROR, execution.error if self._has_messages else execution.error_type)
        times = (execution.created_at, execution.at)
        own = self._ids.execution(execution.execution_id)
        name = execution.workflow
        parent = execution.parent
        links = [self._link(parent, self._ids.child(execution.execution_id))] if parent is not None else []
        self._make(f"workflow {name}", execution.execution_id, own, None, times, attributes, failure, links)
        if parent is not None:
            span, above = self._ids.child(execution.execution_id), self._ids.execution(parent)
            links = [self._link(execution.execution_id, own)]
            self._make(f"child {name}", parent, span, above, times, attributes, failure, links)

    def _attempt(self, call: CallEvent, status: CallStatus, failure: Failure | None) -> None:
        submitted_at = self._submitted_at.pop(call.job_id, None)
        never_began = status is CallStatus.CANCELLED or (failure is not None and failure.kind == "refused")
        if submitted_at is None and never_began:
            return
        attributes = {**_of_call(call), "durable_monty.call.attempt": call.attempt}
        if submitted_at is None:
            # Another worker has submitted it; when, only that one knew.
            attributes["durable_monty.call.is_taken_over"] = True
        if failure is not None:
            attributes |= {"error.type": failure.type, "durable_monty.failure.kind": failure.kind}
        begin = call.created_at if submitted_at is None else submitted_at
        self._make(
            f"attempt {call.function}",
            call.execution_id,
            self._ids.attempt(call.job_id),
            self._ids.call(call.execution_id, call.call_id),
            (begin, call.at),
            attributes,
            self._failed(status, failure),
            kind=SpanKind.PRODUCER,
        )

    def _failed(self, status: CallStatus, failure: Failure | None) -> Status | None:
        if status is not CallStatus.FAILED or failure is None:
            return None
        return Status(StatusCode.ERROR, f"{failure.type}: {failure.message}" if self._has_messages else failure.type)

    def _make(
        self,
        name: str,
        execution_id: str,
        span_id: int,
        parent_id: int | None,
        times: tuple[float, float],
        attributes: Attributes,
        failure: Status | None,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        trace = self._ids.trace(execution_id)
        if parent_id is None and not self._gives_ids:
            parent_id = span_id
        # Never the context of whoever happens to call.
        context = Context()
        if parent_id is not None:
            context = set_span_in_context(NonRecordingSpan(self._context(trace, parent_id)), context)
        begin, end = times
        self._given.give(trace, span_id)
        span = self._tracer.start_span(name, context, kind, dict(attributes), links, start_time=_nanoseconds(begin))
        if failure is not None:
            span.set_status(failure)
        span.end(_nanoseconds(max(begin, end)))

    def _link(self, execution_id: str, span_id: int) -> Link:
        return Link(self._context(self._ids.trace(execution_id), span_id))

    def _context(self, trace: int, span: int) -> SpanContext:
        return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(self._flags(trace)))

    def _flags(self, trace: int) -> int:
        """Whether the trace is sampled, as every worker with the same sampler decides by its id alone."""
        if not isinstance(self._tracer, SdkTracer):
            return TraceFlags.SAMPLED
        result = self._tracer.sampler.should_sample(Context(), trace, "workflow", SpanKind.INTERNAL, {}, ())
        return TraceFlags.SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT


def _of_execution(execution: ExecutionEnded) -> dict[str, str | int | float | bool]:
    wait = None if execution.started_at is None else max(execution.started_at - execution.created_at, 0.0)
    found = {
        "durable_monty.execution.id": execution.execution_id,
        "durable_monty.execution.status": execution.status.value,
        "durable_monty.execution.wait_seconds": wait,
        "durable_monty.workflow": execution.workflow,
        "durable_monty.schedule": execution.schedule,
        "durable_monty.parent": execution.parent,
        "error.type": execution.error_type,
    }
    return {key: value for key, value in found.items() if value is not None}


def _of_call(call: CallEvent) -> dict[str, str | int | float | bool]:
    attributes: dict[str, str | int | float | bool] = {
        "durable_monty.execution.id": call.execution_id,
        "durable_monty.call.id": call.call_id,
        "code.function.name": call.function,
    }
    if call.executor is not None:
        attributes["durable_monty.executor"] = call.executor
    return attributes


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)

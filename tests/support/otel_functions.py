"""Host functions that look at, and add to, the trace that they run in; also in other processes."""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from durable_monty import Retry, current_call, function
from durable_monty_otel import continue_trace, traced

exported = InMemorySpanExporter()


def set_up():
    """What a worker of one's own would do at its start."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exported))
        trace.set_tracer_provider(provider)


set_up()


def spans_of(context: str) -> list[dict]:
    """The spans that ended in this process in a trace, as JSON has it."""
    return [
        {
            "name": span.name,
            "span": f"{span.context.span_id:016x}",
            "parent": f"{span.parent.span_id:016x}" if span.parent else None,
            "error": span.attributes.get("error.type"),
            "events": len(span.events),
        }
        for span in exported.get_finished_spans()
        if f"{span.context.trace_id:032x}" == context.split("-")[1]
    ]


@function
@traced
def work(secret: str) -> str:
    with trace.get_tracer("users").start_as_current_span("inner"):
        return secret


@function
@traced
async def work_async(secret: str) -> str:
    return secret


@function(retry=Retry(attempts=2, first_delay_seconds=0.01))
@traced
def flaky(secret: str) -> str:
    if current_call().attempt == 1:
        raise ValueError(f"not yet {secret}")
    return secret


@function
def made_here() -> list[dict]:
    """What the functions above have left in this process, in the trace of this call."""
    context = current_call().trace_context
    assert context is not None
    return [{**item, "pid": os.getpid()} for item in spans_of(context)]


@function
def current_parent() -> str:
    with continue_trace():
        found = trace.get_current_span().get_span_context()
        return f"{found.trace_id:032x}-{found.span_id:016x}"


@function
def refuse(secret: str) -> None:
    raise PermissionError(f"no {secret}")

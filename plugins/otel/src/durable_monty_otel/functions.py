"""For host functions: what they do belongs to the trace of the execution that called them, wherever they run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from durable_monty.functions import current

P = ParamSpec("P")
R = TypeVar("R")

_SCOPE = "durable_monty.functions"
_propagator = TraceContextTextMapPropagator()


@contextmanager
def continue_trace(name: str | None = None) -> Iterator[trace.Span]:
    """Within the block, spans are children of the attempt that the running host function is.

    Outside a host function, and where the worker has no observer that traces, they are what they would be anyway.

    Args:
        name: Make a span of this name around the block, too. What the block raises marks it as failed, by its type only.

    Yields:
        The span that is current within the block.
    """
    call = current.get()
    carried = call.trace_context if call is not None else None
    found = context.get_current() if carried is None else _propagator.extract({"traceparent": carried})
    token = context.attach(found)
    try:
        if name is None:
            yield trace.get_current_span()
        else:
            with _span(name) as span:
                yield span
    finally:
        context.detach(token)


def traced(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a host function, below `@function`: each attempt is a span, and so is what it does a part of the trace."""
    name = f"run {function.__module__}.{function.__qualname__}"
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with continue_trace(name):
                return await function(*args, **kwargs)

        return cast("Callable[P, R]", run_async)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with continue_trace(name):
            return function(*args, **kwargs)

    return run


@contextmanager
def _span(name: str) -> Iterator[trace.Span]:
    tracer = trace.get_tracer(_SCOPE)
    # An exception's message, and its traceback, may hold values.
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(trace.Status(trace.StatusCode.ERROR))
            raise

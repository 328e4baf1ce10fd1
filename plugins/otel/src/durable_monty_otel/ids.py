"""Ids of traces and spans that every process derives alike, so that none of them has to be stored.

An execution is one trace. Its spans are ended by whichever worker is there, days after they began somewhere else, and
their children are known before they are: so the id of each follows from what it stands for.
"""

from __future__ import annotations

import hashlib
import threading

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator


class Ids:
    """The ids of one namespace."""

    def __init__(self, namespace: str = "") -> None:
        self._namespace = namespace

    def trace(self, execution_id: str) -> int:
        """The trace of an execution."""
        return self._derived(16, "trace", execution_id)

    def execution(self, execution_id: str) -> int:
        """The span of an execution, the root of its trace."""
        return self._derived(8, "execution", execution_id)

    def child(self, execution_id: str) -> int:
        """The span that stands for a child in the trace of its parent."""
        return self._derived(8, "child", execution_id)

    def call(self, execution_id: str, call_id: int) -> int:
        """The span of a call, over all its attempts."""
        return self._derived(8, "call", f"{execution_id}-{call_id}")

    def attempt(self, job_id: str) -> int:
        """The span of one attempt."""
        return self._derived(8, "attempt", job_id)

    def _derived(self, size: int, kind: str, name: str) -> int:
        digest = hashlib.sha256(f"durable-monty\0{self._namespace}\0{kind}\0{name}".encode()).digest()
        # Zero means "none" to OpenTelemetry.
        return int.from_bytes(digest[:size]) or 1


class GivenIds(IdGenerator):
    """Gives the span that is made next in this thread the ids that were asked for; random ones to all others."""

    def __init__(self) -> None:
        self._given = threading.local()
        self._random = RandomIdGenerator()

    def give(self, trace_id: int, span_id: int) -> None:
        """The ids of the next span."""
        self._given.ids = (trace_id, span_id)

    def generate_trace_id(self) -> int:
        """As asked for; called for a span without a parent only, before `generate_span_id`."""
        ids = getattr(self._given, "ids", None)
        return self._random.generate_trace_id() if ids is None else int(ids[0])

    def generate_span_id(self) -> int:
        """As asked for, once."""
        ids, self._given.ids = getattr(self._given, "ids", None), None
        return self._random.generate_span_id() if ids is None else int(ids[1])

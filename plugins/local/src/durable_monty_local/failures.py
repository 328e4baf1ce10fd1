"""Failures that the executor itself reports."""

from __future__ import annotations

from durable_monty.models import Call, Failure


def timed_out(call: Call) -> Failure:
    """The failure of a call that ran longer than it may."""
    text = f"{call.function_name} ran longer than {call.timeout_seconds} s"
    return Failure("timeout", "TimeoutError", text, bases=("OSError", "Exception"))

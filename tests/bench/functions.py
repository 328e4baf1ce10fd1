"""Host functions that cost next to nothing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from durable_monty import function

gate_reached = threading.Event()
gate_opened = threading.Event()


@function
def add(a: int, b: int) -> int:
    return a + b


def plain_identity(value: int) -> int:
    """For RQ alone, which takes a function as it is."""
    return value


@function
def identity(value: int) -> int:
    return value


@function
def gate() -> None:
    """Hold a workflow at this point until the process lets go."""
    gate_reached.set()
    gate_opened.wait()


@function
def begin(path: str) -> None:
    """Tell when this call began, in seconds since the epoch."""
    Path(path).write_text(str(time.time()))

"""What is measured: the registry of sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from databases import Database
from figures import Figure
from latency import latency
from resume import resume
from rq_section import rq
from size import size
from throughput import chain, executions, fan_out


@dataclass(frozen=True)
class Section:
    """A measurement. Another one is a module of its own and an entry below.

    Attributes:
        measure: Yields figures for a database; the second argument asks for small numbers.
        is_quick: Whether `--quick` runs it without being asked for it by name.
    """

    measure: Callable[[Database, bool], Iterator[Figure]]
    is_quick: bool = True


SECTIONS: dict[str, Section] = {
    "chain": Section(chain),
    "fan-out": Section(fan_out),
    "executions": Section(executions),
    "latency": Section(latency),
    "resume": Section(resume),
    "size": Section(size),
    "rq": Section(rq, is_quick=False),
}

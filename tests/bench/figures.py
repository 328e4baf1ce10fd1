"""What a section yields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        commit_seconds: A bare commit of the same database, measured just before; None where that says nothing.
        commits: The value in such commits.
    """

    what: str
    value: float
    unit: str
    commit_seconds: float | None = None
    commits: float | None = None


def timed(what: str, seconds: float, commit_seconds: float, *, unit: str = "ms") -> Figure:
    """A time, in `ms` or `s`, beside a bare commit."""
    return Figure(what, seconds * {"ms": 1000, "s": 1}[unit], unit, commit_seconds, seconds / commit_seconds)

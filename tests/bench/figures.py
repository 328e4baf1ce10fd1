"""What a section yields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        commits: The value in bare commits of the same database, measured just before; None where that says nothing.
    """

    what: str
    value: float
    unit: str
    commits: float | None = None

"""What a run has to say, and what it must remember to judge itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Span:
    """A fault from its beginning to its end, in seconds since the epoch.

    Attributes:
        repeats: Whether a call that was at an executor meanwhile may run again.
    """

    kind: str
    began_at: float
    repeats: bool
    ended_at: float = float("inf")


@dataclass(slots=True)
class Figures:
    """The figures of one installation.

    Attributes:
        faults: How often each fault was brought about.
        spans: When.
        kills: How often each process was killed.
        repeated: How often calls ran that ran more than once, by execution and call.
        refused_starts: Starts that the database did not take at once; they were made again.
    """

    name: str
    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    spans: list[Span] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    calls: int = 0
    repeated: dict[tuple[str, int], int] = field(default_factory=dict)
    refused_starts: int = 0
    dropped_connections: int = 0
    lost_answers: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        shown = ", ".join(f"{count} x {name}" for name, count in sorted(self.faults.items()))
        killed = ", ".join(f"{count} x {name}" for name, count in sorted(self.kills.items()))
        per_second = f"{self.executions / max(self.seconds, 1):.1f} executions/s, {self.calls / max(self.seconds, 1):.1f} calls/s"
        done = f"{self.executions} executions with {self.calls} calls in {self.seconds:.0f} s ({per_second})"
        parts = [
            f"{self.name}, seed {self.seed}: {done}",
            f"{self.faults.total()} faults ({shown})" if self.faults else "",
            f"{self.kills.total()} kills ({killed})" if self.kills else "",
            f"{len(self.repeated)} calls ran more than once",
            f"{self.dropped_connections} connections dropped, {self.lost_answers} answers lost"
            if self.dropped_connections or self.lost_answers
            else "",
            f"{self.refused_starts} starts refused and made again" if self.refused_starts else "",
        ]
        return "\n  ".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        """The same for a file."""
        return {
            "installation": self.name,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "executions": self.executions,
            "calls": self.calls,
            "faults": dict(sorted(self.faults.items())),
            "kills": dict(sorted(self.kills.items())),
            "calls_run_more_than_once": len(self.repeated),
            "connections_dropped": self.dropped_connections,
            "answers_lost": self.lost_answers,
            "starts_refused": self.refused_starts,
        }

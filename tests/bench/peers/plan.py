"""What is measured: every run of every workload, and what issue and documentation want of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

OURS, PINNED, FLOOR, DBOS, ABSURD = "durable-monty", "durable-monty, pinned", "floor", "DBOS", "Absurd"
WORKLOADS = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "counts", "profiles", "claims")
TITLES = {
    "W1": "W1: a chain of N steps, ms a step",
    "W2": "W2: a gather of N calls, ms a call",
    "W3": "W3: N executions of 3 steps, ms for all of them",
    "W4": "W4: SIGKILL after N steps; from imports done until the next call begins, ms",
    "W5": "W5: N executions that wait, ms until all of them do",
    "W6": "W6: one step, from start to result, p50, ms",
    "W7": "W7: N calls through RQ and two SimpleWorkers, ms a call",
}
_PROGRAMS = {OURS: "ours.py", FLOOR: "floor.py", DBOS: "peer_dbos.py", ABSURD: "peer_absurd.py"}
_NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}


@dataclass(frozen=True)
class Case:
    """One line of a table.

    Attributes:
        who: The contestant; what stands behind a comma is how it is run.
        database: "postgresql" or "sqlite".
        repeats: The most repetitions; 1 where one takes minutes.
    """

    workload: str
    who: str
    database: str
    n: int
    synchronous: str = "FULL"
    workers: int = 1
    repeats: int = 100
    timeout_seconds: float = 240.0

    @property
    def program(self) -> str:
        """The file that runs it."""
        return _PROGRAMS[self.who.partition(",")[0]]

    @property
    def is_peer(self) -> bool:
        """Whether it needs the environment of the peers."""
        return self.who.partition(",")[0] in (DBOS, ABSURD)

    @property
    def is_pinned(self) -> bool:
        """Whether all its processes share one processor; workers, where they are apart, have one each."""
        return self.who.endswith(", pinned")

    @property
    def store(self) -> str:
        """The database and how durable it is, as tables call it."""
        return _NAMES[self.database] + (f" {self.synchronous}" if self.database == "sqlite" else "")

    @property
    def key(self) -> str:
        """Under which its runs are kept."""
        parts = (self.workload, self.who, self.store, f"n={self.n}", f"workers={self.workers}")
        return " | ".join(parts)


def cases(workload: str, *, is_quick: bool) -> list[Case]:
    """The runs of a workload, those that are compared next to each other."""
    return list(_PLANS[workload](is_quick))


def _w1(is_quick: bool) -> Iterator[Case]:
    n = 100 if is_quick else 1000
    for who in (OURS, FLOOR, ABSURD, DBOS):
        yield Case("W1", who, "postgresql", n)
    for who in (OURS, FLOOR, ABSURD, DBOS):
        yield Case("W1", f"{who}, pinned", "postgresql", n)
    for synchronous in ("FULL", "NORMAL"):
        for who in (OURS, PINNED, FLOOR, f"{FLOOR}, pinned"):
            yield Case("W1", who, "sqlite", n, synchronous)
    yield Case("W1", DBOS, "sqlite", n)
    if not is_quick:
        for count, timeout in ((10_000, 240.0), (100_000, 480.0)):
            yield Case("W1", OURS, "postgresql", count, repeats=1, timeout_seconds=timeout)
            yield Case("W1", OURS, "sqlite", count, "NORMAL", repeats=1, timeout_seconds=timeout)


def _w2(is_quick: bool) -> Iterator[Case]:
    n = 100 if is_quick else 1000
    for who in (OURS, PINNED, FLOOR, DBOS, f"{DBOS}, pinned", ABSURD):
        yield Case("W2", who, "postgresql", n)
    yield Case("W2", OURS, "sqlite", n)
    if not is_quick:
        yield Case("W2", OURS, "postgresql", 10_000)
        yield Case("W2", FLOOR, "postgresql", 10_000)
        yield Case("W2", DBOS, "postgresql", 10_000, repeats=1)
        yield Case("W2", OURS, "postgresql", 100_000, repeats=1)


def _w3(is_quick: bool) -> Iterator[Case]:
    n = 100 if is_quick else 1000
    for workers in (1, 2):
        for who in (OURS, PINNED, ABSURD, f"{ABSURD}, pinned"):
            yield Case("W3", who, "postgresql", n, workers=workers)
    for who in (FLOOR, DBOS):
        yield Case("W3", who, "postgresql", n)
    yield Case("W3", OURS, "sqlite", n)


def _w4(is_quick: bool) -> Iterator[Case]:
    for n in (10, 100) if is_quick else (10, 1000, 10_000, 100_000):
        yield Case("W4", OURS, "postgresql", n, repeats=1 if n > 10_000 else 100)
        if n <= 10_000:
            yield Case("W4", OURS, "sqlite", n)
            yield Case("W4", ABSURD, "postgresql", n, repeats=2 if n > 1000 else 100)
            yield Case("W4", DBOS, "postgresql", n, repeats=1 if n > 1000 else 100)


def _w5(is_quick: bool) -> Iterator[Case]:
    n = 100 if is_quick else 10_000
    yield Case("W5", OURS, "postgresql", n)
    yield Case("W5", OURS, "sqlite", n, repeats=1)
    yield Case("W5", ABSURD, "postgresql", n, repeats=1)
    yield Case("W5", DBOS, "postgresql", n, repeats=1)


def _w6(is_quick: bool) -> Iterator[Case]:
    n = 20 if is_quick else 200
    for who in (OURS, PINNED, FLOOR, ABSURD, DBOS):
        yield Case("W6", who, "postgresql", n)
    for who in (OURS, FLOOR):
        yield Case("W6", who, "sqlite", n)


_PLANS = {"W1": _w1, "W2": _w2, "W3": _w3, "W4": _w4, "W5": _w5, "W6": _w6}

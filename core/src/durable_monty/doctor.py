"""Finding executions that do not go on, and saying why and what to do.

Reads the database and changes nothing. What is told is what the database and this configuration show: whether a worker
on another machine has an executor can only be seen by what it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from durable_monty.causes import Stuck, judge
from durable_monty.facts import Facts
from durable_monty.runtime import Runtime
from durable_monty.store.examining import PAGE, Waiter

__all__ = ["AFTER_SECONDS", "EXAMPLES", "WAITING_AFTER_SECONDS", "Diagnosis", "Stuck", "diagnose", "examine"]

AFTER_SECONDS = 300.0
"""How long something that workers do by themselves may be late."""
WAITING_AFTER_SECONDS = 86400.0
"""How long something that only somebody outside can end may last: a wait for a signal, a call without a time limit."""
EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Executions that do not go on for the same reason.

    Attributes:
        kind: The kind of reason, one of the words that `docs/howto/stuck.md` explains.
        subject: What it is about, such as an executor's name; empty: nothing in particular.
        explanation: A sentence that holds for all of them.
        remedy: What to do.
        count: How many they are.
        since: Since when the first of them does not go on, in seconds since the epoch; None: that cannot be told.
        executions: The first of them that were found.
    """

    kind: str
    subject: str
    explanation: str
    remedy: str
    count: int
    since: float | None
    executions: tuple[Stuck, ...]


def diagnose(
    runtime: Runtime, after_seconds: float, waiting_seconds: float, *, examples: int, checks: bool
) -> list[Diagnosis]:
    """Every execution that does not go on, by reason, the most frequent reason first.

    Args:
        after_seconds: How long something that workers do by themselves may be late.
        waiting_seconds: How long something that only somebody outside can end may last.
        examples: Most executions to name for each reason.
        checks: Whether to ask executors that have calls which do not begin whether they can work.

    Raises:
        ValueError: A number is negative.
        StoreError: The database does not answer.
    """
    for name, number in (
        ("after_seconds", after_seconds), ("waiting_seconds", waiting_seconds), ("examples", examples)
    ):  # fmt: skip
        if not number >= 0:
            raise ValueError(f"looking for stuck executions: {name} is {number!r}; it must be at least 0")
    groups: dict[tuple[str, str, str], Diagnosis] = {}
    for item in examine(runtime, after_seconds, waiting_seconds, checks=checks):
        key = (item.kind, item.subject, item.explanation)
        known = groups.get(key)
        if known is None:
            known = Diagnosis(item.kind, item.subject, item.explanation, item.remedy, 0, item.since, ())
        shown = (*known.executions, item) if len(known.executions) < examples else known.executions
        times = [time for time in (known.since, item.since) if time is not None]
        groups[key] = replace(known, count=known.count + 1, since=min(times, default=None), executions=shown)
    return sorted(groups.values(), key=lambda item: (-item.count, item.kind, item.subject))


def examine(runtime: Runtime, after_seconds: float, waiting_seconds: float, *, checks: bool = True) -> Iterator[Stuck]:
    """Every execution that does not go on, one by one; see `diagnose`."""
    facts = Facts(runtime, after_seconds, waiting_seconds, checks=checks)
    # Of children that are waited for: what is at the root of it.
    roots: dict[str, Stuck] = {}
    found: set[str] = set()
    for page in runtime.store.examining.living():
        facts.read(page)
        for living in page:
            stuck = judge(living, facts)
            if stuck is None or living.id in found:
                continue
            found.add(living.id)
            if living.parent is not None:
                roots[living.id] = stuck
            yield stuck
    yield from _waiters(runtime, roots, found)


def _waiters(runtime: Runtime, roots: dict[str, Stuck], found: set[str]) -> Iterator[Stuck]:
    """The executions that wait for children which do not go on, from these upwards."""
    level = list(roots)
    while level:
        above = []
        for start in range(0, len(level), PAGE):
            for waiter in runtime.store.examining.waiters(level[start : start + PAGE]):
                if waiter.id in found:
                    continue
                found.add(waiter.id)
                above.append(waiter.id)
                roots[waiter.id] = roots[waiter.child]
                yield _waits(waiter, roots[waiter.child])
        level = above


def _waits(waiter: Waiter, root: Stuck) -> Stuck:
    about = f"{root.kind} {root.subject}".strip()
    return Stuck(
        waiter.id,
        "child",
        about,
        "it waits for a child that does not go on itself",
        f"see {root.kind!r}: mend what holds up the child, and its parents go on by themselves",
        f"child {waiter.child!r}"
        + (f", held up by {root.execution_id!r}" if root.execution_id != waiter.child else ""),
        waiter.since,
        waiter.call_id,
        waiter.line or None,
    )

"""Bugs that are put into the engine to see that the simulation finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from durable_monty import engine, loop
from durable_monty.dispatcher import Dispatcher
from durable_monty.held import Held
from durable_monty.interpreter import Session
from durable_monty.records import CommitResult
from durable_monty.store import claiming, commit_sqlite, limits, signals, store
from durable_monty.store.fixed import MAY_CLAIM, Fixed
from durable_monty.turns import TurnRunner


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The engine with this bug; None: as it is."""
    with ExitStack() as stack:
        for target, attribute, value in PLANTS[name]() if name else ():
            stack.enter_context(patch.object(target, attribute, value))
        yield


Change = tuple[Any, str, Any]


def _without(statement: str, part: str, instead: str = "") -> list[Change]:
    text = getattr(commit_sqlite, statement)
    assert part in text
    return [(commit_sqlite, statement, text.replace(part, instead))]


def _complete_before_commit() -> list[Change]:
    original = loop.Loop._record

    def record(self: Any, verdict: Any, *, submits: bool = True) -> None:
        self._dispatcher.complete(verdict.done)
        original(self, verdict, submits=submits)

    return [(loop.Loop, "_record", record)]


def _late_delivery_recorded() -> list[Change]:
    def settle(connection: Any, settlements: Any, deliveries: Any) -> frozenset[str]:
        original(connection, settlements, deliveries)
        return frozenset()

    original = commit_sqlite._settle
    return [(commit_sqlite, "_settle", settle)]


def _stale_turns_followed() -> list[Change]:
    original = store.Store.commit

    def commit(self: Any, *arguments: Any) -> CommitResult:
        result = original(self, *arguments)
        return CommitResult(frozenset(), result.ignored, result.is_more)

    return [(store.Store, "commit", commit)]


def _jobs_of_the_dead_forgotten() -> list[Change]:
    original = store.Store.take_over

    def take_over(self: Any, *arguments: Any) -> Any:
        return original(self, *arguments) and []

    return [(store.Store, "take_over", take_over)]


def _deliveries_share_a_place() -> list[Change]:
    original = Held.note_delivery

    def note(self: Any, batches: Any) -> None:
        first = self.next_batch
        original(self, batches)
        self.next_batch = min(self.next_batch, first + 1)
        for item in list(self.unsaved.values()):
            if item.batch > first:
                self.unsaved[item.call_id] = type(item)(item.call_id, first, item.position)

    return [(Held, "note_delivery", note)]


def _ended_with_open_calls() -> list[Change]:
    original = TurnRunner._close

    def close(self: Any, held: Any, turn: Any) -> Any:
        turn = original(self, held, turn)
        turn.cancelled = []
        return turn

    return [(TurnRunner, "_close", close)]


def _clocks_read_anew() -> list[Change]:
    original = Session.start

    def start(self: Any, source: Any, inputs: Any, recorded_clocks: Any = None) -> Any:
        return original(self, source, inputs, None)

    return [(Session, "start", start)]


def _signals_kept() -> list[Change]:
    class Kept:
        def where(self, *_: Any) -> Any:
            from sqlalchemy import select

            return select(signals.signals.c.id).limit(0)

    return [(signals, "delete", lambda table: Kept())]


def _unknown_jobs_forgotten() -> list[Change]:
    return [(Dispatcher, "give_back_unknown", lambda self, calls: None)]


def _refused_outcomes_kept() -> list[Change]:
    return [(engine.Engine, "_forget_refused", lambda self, taken, ignored, now: None)]


def _dead_may_claim() -> list[Change]:
    guard = Fixed(MAY_CLAIM)._sqlite
    claims = (claiming._CLAIM_DUE, claiming._CLAIM_THESE, claiming._CLAIM_CALLS, limits._CLAIM, store._TAKE_OVER)
    assert all(guard in claim._sqlite for claim in claims)
    return [(claim, "_sqlite", claim._sqlite.replace(guard, "TRUE")) for claim in claims]


def _newer_attempts_ignored() -> list[Change]:
    original = Held.settle

    def settle(self: Any, item: Any) -> bool:
        call = self.open.get(item.call_id)
        return call is not None and call.attempt == item.attempt and original(self, item)

    return [(Held, "settle", settle)]


def _nobody_woken() -> list[Change]:
    return [(commit_sqlite, "_WAKE", commit_sqlite._WAKE.replace("wake_at = :now", "wake_at = wake_at"))]


PLANTS: dict[str, Callable[[], list[Change]]] = {
    "compare and swap left out": lambda: _without("_TURN", "AND version = :version AND worker = :worker"),
    "any worker moves an execution on": lambda: _without("_TURN", "AND worker = :worker"),
    "fencing left out": lambda: _without("_SETTLE", "AND attempt = :attempt"),
    "a second outcome replaces the first": lambda: _without(
        "_SETTLE", "AND status IN ('pending', 'submitting', 'submitted')"
    ),
    "an old snapshot is kept": lambda: _without(
        "_PUT_SNAPSHOT", "version = excluded.version,", "version = snapshots.version,"
    ),
    "complete before commit": _complete_before_commit,
    "late delivery recorded": _late_delivery_recorded,
    "stale turns followed": _stale_turns_followed,
    "jobs of the dead forgotten": _jobs_of_the_dead_forgotten,
    "deliveries share a place": _deliveries_share_a_place,
    "ended with open calls": _ended_with_open_calls,
    "clocks read anew in a replay": _clocks_read_anew,
    "signals kept after they were given": _signals_kept,
    "nobody woken by an outcome": _nobody_woken,
    # What the simulation found when it was written.
    "claims of unknown outcome forgotten": _unknown_jobs_forgotten,
    "refused outcomes kept": _refused_outcomes_kept,
    "the dead may claim": _dead_may_claim,
    "attempts begun elsewhere ignored": _newer_attempts_ignored,
}
"""By name, what is changed: object, attribute, value."""

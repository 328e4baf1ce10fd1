"""What the workflow's own doings mean for its calls within a turn: races that are decided, channels that are filled.

The calls of those that lost a race end as cancelled, so that their tasks are told, their jobs are stopped and the
signals they waited for go to others; a task that waits for another task goes on when that one has put something into
their channel. All of it becomes durable with the turn, deliveries included, so that a replay sees the same.
"""

from __future__ import annotations

from collections.abc import Callable

from durable_monty.held import Held
from durable_monty.interpreter import Announced, Answer, Mark, Progress, scopes
from durable_monty.models import CallStatus, Failure
from durable_monty.records import CallKind, CallRow, DueCall, Settlement
from durable_monty.store import failure_text, read_failure

LOST = "it lost a race, or was given up by a timeout"
_LOST_TEXT = failure_text(Failure("cancelled", "BaseException", LOST))


class Consequences:
    """Follows one turn; called after each of its resumes.

    Args:
        new_row: Makes the row of a call that was just announced.

    Attributes:
        rows: The calls that the turn announced so far, by call id.
        settlements: Outcomes of older calls that follow from the turn.
        rescoped: Older calls whose scope the turn has changed, with the new one.
        scopes_before: The scopes that these had.
    """

    def __init__(self, held: Held, new_row: Callable[[Announced], CallRow], now: float) -> None:
        self._held = held
        self._new_row = new_row
        self._now = now
        self._seen = 0
        self._batches_seen = 0
        self._delivered: set[int] = set()
        # By race, the calls that run in it; gathered when the first race of the turn is over.
        self._racing: dict[str, dict[int, CallRow]] | None = None
        self.rows: dict[int, CallRow] = {}
        self.settlements: list[Settlement] = []
        self.rescoped: dict[int, str] = {}
        self.scopes_before: dict[int, str] = {}

    def tell_cancelled(self) -> None:
        """Let what a cancellation ends be cleaned up: the end of a race around it cancels nothing of that."""
        for row in self._held.undelivered.values():
            if row.scope and row.status is CallStatus.CANCELLED:
                self._rescope(row, scopes.told(row.scope))

    def __call__(self, progress: Progress) -> list[Answer]:
        """The answers that follow from the last resume."""
        made = [self._new_row(announced) for announced in progress.announced[self._seen :]]
        self._seen = len(progress.announced)
        for batch in progress.batches[self._batches_seen :]:
            self._delivered.update(batch)
        self._batches_seen = len(progress.batches)
        for row in made:
            self.rows[row.call_id] = row
            self._note_race(row)
        lost = [row for row in made if scopes.is_untold(row.scope) and not row.kind.is_answered]
        answers = [self._lose(row) for row in lost]
        marks, progress.marks = progress.marks, []
        for mark in marks:
            answers += self._follow(mark)
        return answers

    def _follow(self, mark: Mark) -> list[Answer]:
        if mark.what == "_open":
            for call_id in mark.calls:
                row = self._row(call_id)
                if row is not None:
                    self._rescope(row, mark.subject)
                    self._note_race(row)
            return []
        if mark.what == "_close":
            return self._close(mark.subject)
        waiting = self._waiting(mark.subject)
        return [] if waiting is None else [self._end(waiting, CallStatus.COMPLETED, "null")]

    def _close(self, race: str) -> list[Answer]:
        """Everything in a race that is over has lost; the winner has nothing in it any more."""
        answers = []
        for row in self._rows_in(race):
            if not scopes.is_within(row.scope, race):
                continue
            if not row.status.is_terminal:
                answers.append(self._lose(row))
            elif row.call_id in self._held.undelivered and row.call_id not in self._delivered:
                # Its task has not heard of its outcome, which is in the log: the task's next call is cancelled, unless
                # the outcome is that it was cancelled.
                is_told = row.status is CallStatus.CANCELLED
                self._rescope(row, scopes.told(row.scope) if is_told else scopes.untold(row.scope))
                answers.append(answer_of(row))
        return answers

    def _rows_in(self, race: str) -> list[CallRow]:
        if self._racing is None:
            self._racing = {}
            for row in (*self._held.undelivered.values(), *self._held.open.values(), *self.rows.values()):
                self._note_race(row)
        return list(self._racing.pop(race, {}).values())

    def _note_race(self, row: CallRow) -> None:
        if self._racing is None:
            return
        scope = row.scope
        while scope:
            self._racing.setdefault(scope, {})[row.call_id] = row
            scope = scopes.outer(scope)

    def _lose(self, row: CallRow) -> Answer:
        self._rescope(row, scopes.told(row.scope))
        if row.call_id not in self.rows:
            self._held.cancelled_jobs.append(DueCall(self._held.row.id, row))
        return self._end(row, CallStatus.CANCELLED, _LOST_TEXT)

    def _end(self, row: CallRow, status: CallStatus, outcome: str) -> Answer:
        if row.call_id in self.rows:
            row.status, row.outcome, row.ended_at = status, outcome, self._now
            self._held.undelivered[row.call_id] = row
        else:
            own = self._held.row.id
            # Without the turn the race is not decided.
            item = Settlement(own, row.call_id, row.attempt, status, outcome, self._now, requires=own)
            self.settlements.append(item)
            self._held.settle(item)
        return answer_of(row)

    def _rescope(self, row: CallRow, scope: str) -> None:
        if row.scope == scope:
            return
        if row.call_id not in self.rows:
            self.scopes_before.setdefault(row.call_id, row.scope)
            self.rescoped[row.call_id] = scope
        row.scope = scope

    def _row(self, call_id: int) -> CallRow | None:
        return self.rows.get(call_id) or self._held.open.get(call_id) or self._held.undelivered.get(call_id)

    def _waiting(self, channel: str) -> CallRow | None:
        """The oldest call that waits for this channel."""
        candidates = (*self._held.channels.values(), *self.rows.values())
        waiting = (
            row
            for row in candidates
            if row.kind is CallKind.CHANNEL and row.function == channel and not row.status.is_terminal
        )
        return min(waiting, key=lambda row: row.call_id, default=None)


def answer_of(call: CallRow) -> Answer:
    """The outcome of a call that has ended, as the sandbox takes it."""
    if call.status is CallStatus.COMPLETED:
        return Answer(call.call_id, value_text=call.outcome, scope=call.scope)
    return Answer(call.call_id, failure=read_failure(call.outcome or ""), scope=call.scope)

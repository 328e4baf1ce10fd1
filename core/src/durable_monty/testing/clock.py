"""A clock that a test moves."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from durable_monty.durations import MAX_SECONDS, checked_seconds


class VirtualClock:
    """The time in a `WorkflowTest`: it stands still until somebody moves it.

    Args:
        start: The time at the beginning, with a time zone.
        move: Told to go to a time, in seconds since the epoch, meeting everything that is due on the way.

    Raises:
        ValueError: `start` has no time zone.
    """

    def __init__(self, start: dt.datetime, move: Callable[[float], None]) -> None:
        self._start = _seconds("now", start)
        self._time = self._start
        self._move = move

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self._time

    @property
    def now(self) -> dt.datetime:
        """The time, in UTC."""
        return dt.datetime.fromtimestamp(self._time, dt.UTC)

    @property
    def elapsed_seconds(self) -> float:
        """How far it has been moved since the beginning."""
        return self._time - self._start

    def advance(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Go forward; everything that becomes due on the way happens, each at its time.

        Raises:
            ValueError: The sum is negative or more than a hundred years.
        """
        total = seconds + 60 * minutes + 3600 * hours + 86_400 * days
        self._move(self._time + checked_seconds("moving the clock", "the duration", total, allow_zero=True))

    def advance_to(self, when: dt.datetime) -> None:
        """Go forward to a time; as `advance`.

        Raises:
            ValueError: It has no time zone, or has passed.
        """
        time = _seconds("the time to go to", when)
        if time < self._time:
            raise ValueError(f"moving the clock to {when}: it is {self.now} already, and a clock does not go back")
        self._move(time)

    def set(self, time: float) -> None:
        """Show this time, in seconds since the epoch; nothing happens because of it."""
        self._time = max(self._time, min(time, self._start + MAX_SECONDS))


def _seconds(what: str, time: dt.datetime) -> float:
    if time.tzinfo is None:
        raise ValueError(f"{what} is {time}; it needs a time zone, for example tzinfo=datetime.UTC")
    return time.timestamp()

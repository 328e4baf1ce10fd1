"""When a schedule fires: cron lines in a time zone, and intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from durable_monty.durations import checked_seconds
from durable_monty.errors import ScheduleError

# Looked back at for the latest time: the first of these in which there is one is walked through.
_WINDOWS_SECONDS = (3600.0, 86_400.0, 32 * 86_400.0, 367 * 86_400.0)


@dataclass(frozen=True, slots=True)
class FireTimes:
    """The times of one schedule, in seconds since the epoch.

    A cron line is read as Debian's cron does in the time zone. Times of day that do not exist, because the clock is
    put forward, fire when it has been; times that exist twice, because it is put back, fire the first time. Lines whose
    minute or hour begins with `*` follow the clock: they skip what does not exist and fire twice in what does.

    Args:
        cron: Five fields, or six with seconds first; or None.
        interval_seconds: Seconds between two times, counted from `anchor`; or None.
    """

    cron: str | None
    timezone: str
    interval_seconds: float | None
    anchor: float

    def after(self, time: float) -> float | None:
        """The first time after this one; None: there is none in the next 50 years."""
        return next(self.following(time), None)

    def latest(self, now: float, since: float) -> float | None:
        """The last time that is not after `now`, if it is after `since`."""
        for window in (*_WINDOWS_SECONDS, math.inf):
            begin = max(since, now - window)
            found = None
            for time in self.following(begin):
                if time > now:
                    break
                found = time
            if found is not None or begin == since:
                return found
        return None

    def following(self, time: float) -> Iterator[float]:
        """Every time after this one."""
        return self._cron_times(time) if self.interval_seconds is None else self._interval_times(time)

    def _interval_times(self, time: float) -> Iterator[float]:
        assert self.interval_seconds is not None
        count = max(math.floor((time - self.anchor) / self.interval_seconds), 0)
        while True:
            count += 1
            found = self.anchor + count * self.interval_seconds
            if found > time:
                yield found

    def _cron_times(self, time: float) -> Iterator[float]:
        from cronsim import CronSim

        assert self.cron is not None
        begin = datetime.fromtimestamp(math.floor(time), zone_of(self.timezone))
        try:
            for found in CronSim(self.cron, begin):
                seconds = found.timestamp()
                # Where an hour exists twice, what follows its second half may lie in its first.
                if seconds > time:
                    yield seconds
        except (OverflowError, ValueError):
            # Beyond the last year that a date can have.
            return


def checked_times(doing: str, cron: str | None, timezone: str, interval_seconds: float | None, now: float) -> FireTimes:
    """The times that were asked for.

    Raises:
        ScheduleError: Neither or both of cron line and interval were given, or one means nothing, never fires, or names
            a time zone that does not exist.
    """
    if (cron is None) == (interval_seconds is None):
        raise ScheduleError(f"{doing}: {'neither' if cron is None else 'both'} cron and interval_seconds; give one")
    try:
        zone_of(timezone)
    except LookupError as error:
        raise ScheduleError(f"{doing}: {error.args[0]}") from error
    if interval_seconds is not None:
        try:
            interval_seconds = checked_seconds(doing, "interval_seconds", interval_seconds)
        except ValueError as error:
            raise ScheduleError(str(error)) from error
        if interval_seconds < 1:
            raise ScheduleError(f"{doing}: interval_seconds is {interval_seconds:g}; 1 is the least")
        return FireTimes(None, timezone, interval_seconds, now)
    return _checked_cron(doing, FireTimes(cron, timezone, None, now), now)


def zone_of(name: str) -> tzinfo:
    """A time zone by its name.

    Raises:
        LookupError: There is none of this name here.
    """
    # Asked for without the tables of the time zones, which small images lack.
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError, TypeError, AttributeError) as error:
        raise LookupError(
            f"timezone is {name!r}, which this machine does not know; write a name like 'Europe/Berlin', and if it is "
            "right, run `pip install tzdata`"
        ) from error


def _checked_cron(doing: str, times: FireTimes, now: float) -> FireTimes:
    from cronsim import CronSimError

    try:
        first = times.after(now)
    except (CronSimError, AttributeError) as error:
        raise ScheduleError(
            f"{doing}: cron is {times.cron!r}: {error}; write minute, hour, day of month, month and day of week, for "
            "example '0 6 * * MON-FRI', with a day that the month has"
        ) from error
    if first is None:
        raise ScheduleError(f"{doing}: cron is {times.cron!r}, which never fires; change its day or month")
    return times

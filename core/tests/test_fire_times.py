"""When schedules fire, compared with a calendar that is walked through minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_monty.errors import ScheduleError
from durable_monty.firetimes import FireTimes, checked_times

ZONE = ZoneInfo("Europe/Berlin")
# An hour is left out on 2026-03-29 at 02:00 and exists twice on 2026-10-25 at 02:00.
CHANGES = [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


def cron_times(line, timezone="Europe/Berlin"):
    return FireTimes(line, timezone, None, 0.0)


def field(low, high):
    """A field of a cron line with the values that it stands for."""
    numbers = st.integers(low, high)
    whole = set(range(low, high + 1))
    return st.one_of(
        st.just(("*", whole)),
        st.integers(2, 20).map(lambda step: (f"*/{step}", set(range(low, high + 1, step)))),
        st.sets(numbers, min_size=1, max_size=3).map(lambda found: (",".join(map(str, sorted(found))), found)),
        st.tuples(numbers, numbers).map(
            lambda pair: (f"{min(pair)}-{max(pair)}", set(range(min(pair), max(pair) + 1)))
        ),
    )


def matches(at, minutes, hours, weekdays):
    return at.minute in minutes and at.hour in hours and DAYS[(at.weekday() + 1) % 7] in weekdays


def model(minutes, hours, weekdays, *, follows_clock, begin, end):
    """Every fire time in (begin, end], by trying each minute there is."""
    found = set()
    if follows_clock:
        at = begin.replace(second=0, microsecond=0)
        while at <= end:
            if matches(at.astimezone(ZONE), minutes, hours, weekdays):
                found.add(at)
            at += timedelta(minutes=1)
    else:
        # Each minute that a calendar on the wall would show, whether the clock shows it or not.
        wall = begin.astimezone(ZONE).replace(tzinfo=None, second=0) - timedelta(hours=3)
        while wall <= end.astimezone(ZONE).replace(tzinfo=None) + timedelta(hours=3):
            if matches(wall, minutes, hours, weekdays):
                shown = wall
                while shown.replace(tzinfo=ZONE).astimezone(UTC).astimezone(ZONE).replace(tzinfo=None) != shown:
                    shown += timedelta(minutes=1)
                found.add(shown.replace(tzinfo=ZONE, fold=0).astimezone(UTC))
            wall += timedelta(minutes=1)
    return sorted(at.timestamp() for at in found if begin < at <= end)


@settings(max_examples=60, deadline=None)
@given(
    minute=field(0, 59),
    hour=field(0, 23),
    weekdays=st.one_of(st.just(set(DAYS)), st.sets(st.sampled_from(DAYS), min_size=1)),
    change=st.sampled_from(CHANGES),
    offset=st.integers(-40 * 60, 10 * 60),
    data=st.data(),
)
def test_fire_times_are_those_of_the_calendar(minute, hour, weekdays, change, offset, data):
    begin = change + timedelta(minutes=offset)
    end = begin + timedelta(hours=40)
    days = "*" if weekdays == set(DAYS) else ",".join(sorted(weekdays))
    times = cron_times(f"{minute[0]} {hour[0]} * * {days}")
    follows_clock = minute[0].startswith("*") or hour[0].startswith("*")
    expected = model(minute[1], hour[1], weekdays, follows_clock=follows_clock, begin=begin, end=end)
    found = []
    for at in times.following(begin.timestamp()):
        if at > end.timestamp():
            break
        found.append(at)
    assert found == expected
    # Wherever one begins to ask, the next time and the last time are those of the whole list.
    asked = begin.timestamp() + data.draw(st.integers(0, 40 * 3600))
    later = [at for at in expected if at > asked]
    assert not later or times.after(asked) == later[0]
    earlier = [at for at in expected if at <= asked]
    assert times.latest(asked, begin.timestamp()) == (earlier[-1] if earlier else None)


def shown(line, timezone, begin, count):
    times = cron_times(line, timezone).following(datetime.fromisoformat(begin).timestamp())
    zone = ZoneInfo(timezone)
    return [datetime.fromtimestamp(next(times), zone).isoformat() for _ in range(count)]


def test_a_time_of_day_that_does_not_exist_fires_when_the_clock_has_moved_on():
    found = shown("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00+01:00", 3)
    assert found == ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]


def test_a_time_of_day_that_exists_twice_fires_once():
    found = shown("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00+02:00", 2)
    assert found == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


def test_every_hour_is_every_hour_that_passes():
    found = shown("0 * * * *", "Europe/Berlin", "2026-10-25T01:30:00+02:00", 3)
    assert found == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"]


def test_six_fields_begin_with_seconds():
    times = cron_times("*/20 * * * * *", "UTC").following(0.0)
    assert [next(times) for _ in range(3)] == [20.0, 40.0, 60.0]


def test_an_interval_counts_from_its_anchor():
    times = FireTimes(None, "UTC", 90.0, 1000.5)
    assert times.after(1000.5) == 1090.5
    assert times.after(1090.5) == 1180.5
    assert times.latest(5000.0, 1000.5) == 1000.5 + 44 * 90
    assert times.latest(1050.0, 1000.5) is None


def test_the_last_time_is_found_however_long_ago_it_was():
    begin = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
    now = datetime(2026, 7, 1, tzinfo=UTC).timestamp()
    assert cron_times("* * * * *", "UTC").latest(now, begin) == now
    leap_day = datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()
    assert cron_times("0 12 29 2 *", "UTC").latest(now, begin) == leap_day
    assert cron_times("0 12 29 2 *", "UTC").latest(now, leap_day) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cron": "0 0 30 2 *"}, "Bad day-of-month; .*with a day that the month has"),
        ({"cron": "0 0 31 4,6 *"}, "Bad day-of-month"),
        ({"cron": "0 25 * * *"}, "Bad hour"),
        ({"cron": "every day"}, "Wrong number of fields"),
        ({"cron": ""}, "Wrong number of fields"),
        ({"cron": 5}, "cron is 5"),
        ({"cron": "0 6 * * *", "timezone": "Europe/Bonn"}, "'Europe/Bonn', which this machine does not know.*tzdata"),
        ({"cron": "0 6 * * *", "timezone": "../etc/passwd"}, "does not know"),
        ({"cron": "0 6 * * *", "timezone": None}, "timezone is None"),
        ({}, "neither cron and interval_seconds; give one"),
        ({"cron": "0 6 * * *", "interval_seconds": 5}, "both cron and interval_seconds"),
        ({"interval_seconds": 0}, "interval_seconds is 0; it must be more than 0"),
        ({"interval_seconds": 0.5}, "interval_seconds is 0.5; 1 is the least"),
        ({"interval_seconds": -5}, "interval_seconds is -5"),
        ({"interval_seconds": float("inf")}, "finite number"),
        ({"interval_seconds": 1e11}, "more than a hundred years"),
    ],
)
def test_times_that_cannot_be_are_refused(arguments, message):
    given_ = {"cron": None, "timezone": "UTC", "interval_seconds": None, **arguments}
    with pytest.raises(ScheduleError, match=f"creating schedule 'a': .*{message}"):
        checked_times("creating schedule 'a'", now=0.0, **given_)


def test_a_line_that_never_fires_is_told_from_one_that_seldom_does():
    assert checked_times("x", "0 0 29 2 *", "UTC", None, 0.0)
    with pytest.raises(ScheduleError, match="which never fires"):
        checked_times("x", "0 0 */30 2 SUN#2", "UTC", None, 0.0)

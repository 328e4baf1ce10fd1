"""Runs a Python script with its clock wrong: `shifted_clock.py SECONDS SCRIPT [ARGUMENT ...]`.

What asks `time.time`, `time.time_ns` or `datetime.now` is told a time that is so many seconds off, as on a machine whose
clock is wrong. What is written in C asks the kernel and is told the truth.
"""

from __future__ import annotations

import datetime as dt
import runpy
import sys
import time


class _Kind(type):
    """Of the class that stands for `datetime`: the real one's instances are its own."""

    def __instancecheck__(cls, item: object) -> bool:
        return isinstance(item, _Real)


_Real = dt.datetime


def shift(seconds: float) -> None:
    true_time, true_time_ns = time.time, time.time_ns

    class Shifted(_Real, metaclass=_Kind):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return _Real.now(tz) + dt.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> dt.datetime:
            return cls.now(dt.UTC).replace(tzinfo=None)

    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_time_ns() + int(seconds * 1_000_000_000)
    dt.datetime = Shifted


if __name__ == "__main__":
    shift(float(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")

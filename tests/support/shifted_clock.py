"""Runs a Python script with its clock wrong: `shifted_clock.py SECONDS SCRIPT [ARGUMENT ...]`.

What asks `time.time` or `time.time_ns` is told a time that is so many seconds off, as on a machine whose clock is wrong.
"""

from __future__ import annotations

import runpy
import sys
import time


def shift(seconds: float) -> None:
    true_time, true_time_ns = time.time, time.time_ns
    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_time_ns() + int(seconds * 1_000_000_000)


if __name__ == "__main__":
    shift(float(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")

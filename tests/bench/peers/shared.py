"""What the runners share: `python runner.py WORKLOAD URL COUNT` prints one line of JSON with seconds for each unit."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

WORKLOAD, URL, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])


def tell(seconds_per_unit: float, **others: float) -> None:
    print(json.dumps({"seconds": seconds_per_unit, **others}), flush=True)


def tell_latencies(action: Callable[[], object]) -> None:
    """Run the action `COUNT` times after one that warms up; tell the median and the 95th percentile."""
    action()
    times = []
    for _ in range(COUNT):
        began_at = time.perf_counter()
        action()
        times.append(time.perf_counter() - began_at)
    tell(statistics.median(times), p95=statistics.quantiles(times, n=20)[18])


def check(found: object, expected: object) -> None:
    if found != expected:
        raise RuntimeError(f"running {WORKLOAD}: found {found!r}, not {expected!r}; its figures mean nothing")

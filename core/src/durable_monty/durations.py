"""Durations that people give: checked, in seconds."""

from __future__ import annotations

import math
import re

MAX_SECONDS = 100 * 366 * 86_400.0
"""A hundred years: what is longer is a mistake, such as milliseconds for seconds."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")


def backoff_seconds(failures: int, first_seconds: float, max_seconds: float) -> float:
    """How long to leave something alone that has failed: doubled with each failure before, up to a bound."""
    # An outage may be long: the power is bounded, not only what comes of it.
    return float(min(first_seconds * 2 ** min(failures, 60), max_seconds))


def checked_seconds(doing: str, name: str, value: object, *, allow_zero: bool = False) -> float:
    """A duration as it was given.

    Args:
        doing: How the message begins.
        name: What the duration is called.

    Raises:
        ValueError: It is no number, not finite, negative, zero where that means nothing, or beyond a hundred years.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):  # type: ignore[arg-type]  # it is a number here
        raise ValueError(f"{doing}: {name} is {value!r}; it must be a finite number of seconds")
    seconds = float(value)  # type: ignore[arg-type]  # it is a number here
    if seconds < 0 or (seconds == 0 and not allow_zero):
        raise ValueError(
            f"{doing}: {name} is {value!r}; it must {'not be negative' if allow_zero else 'be more than 0'}"
        )
    if seconds > MAX_SECONDS:
        raise ValueError(f"{doing}: {name} is {value!r}, more than a hundred years; it is in seconds")
    return seconds


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `15m`, `12h`, `30d` or `2w`.

    Raises:
        ValueError: It is not of that form.
    """
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no duration; write a number and s, m, h, d or w, for example 30d")
    return float(found[1]) * _UNITS[found[2] or "s"]

"""Concurrency and rate limits: what a call is counted by, and how many of those that wait may begin.

A limit is kept by the database: whoever wants to begin a limited call takes turns on the row of its key.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durable_monty import codec, convert, functions
from durable_monty.errors import FunctionError
from durable_monty.policies import CallPolicy, rate_per_second
from durable_monty.predicates import find_predicate
from durable_monty.records import CallRow

UNKNOWN_KEY = "?"
"""Begins the limit key of a call whose key could not be had; the reason follows. Such a call is refused."""

SECONDS_PER_PRIORITY = 60.0
"""A call that waits is taken as if it had been due so much earlier for each unit of its priority."""

_MAX_KEY_CHARACTERS = 200
# At high rates single calls would have to be begun faster than a worker looks; so much of a second's may begin together.
_BURST_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Limit:
    """What a call's policy says about those that share its key."""

    concurrency: int | None
    per_second: float | None

    @classmethod
    def of(cls, policy: Mapping[str, Any]) -> Limit:
        """The limit that is stored with a call."""
        rate = policy.get("rate")
        return cls(policy.get("concurrency"), None if rate is None else rate_per_second(rate))

    @property
    def burst(self) -> float:
        """Most that may begin at once after a quiet time."""
        return max(1.0, (self.per_second or 0.0) * _BURST_SECONDS)

    def tokens(self, kept: float, seconds: float) -> float:
        """How many may begin now by the rate, `seconds` after so many were `kept`."""
        return math.inf if self.per_second is None else min(self.burst, kept + max(seconds, 0.0) * self.per_second)

    def room(self, tokens: float, running: int) -> int | None:
        """How many may begin now; None: any number."""
        by_count = None if self.concurrency is None else max(self.concurrency - running, 0)
        # A hair less than a whole token is one: it was counted with floating-point numbers.
        by_rate = None if self.per_second is None else math.floor(tokens + 1e-6)
        return min((room for room in (by_count, by_rate) if room is not None), default=None)

    def seconds_until_next(self, tokens: float) -> float | None:
        """When the rate lets the next one begin; None: it does not say."""
        return None if self.per_second is None else max(1.0 - tokens, 0.0) / self.per_second


def limit_key(call: CallRow, policy: CallPolicy) -> str:
    """What the calls that share a limit with this one have in common.

    A call whose key cannot be had gets one that begins with `UNKNOWN_KEY`: counted under another it might exceed a limit.
    """
    if policy.key_value is not None:
        return _joined(call.function, policy.key_value)
    if policy.key is None:
        return call.function
    try:
        return _joined(call.function, _key(call, policy.key))
    except FunctionError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the key function is the user's
        reason = f"it raised {type(error).__name__}: {error}"
    return f"{UNKNOWN_KEY}the key {policy.key!r} of {call.function!r} cannot be had in the worker: {reason}"


def _key(call: CallRow, name: str) -> Any:
    key = find_predicate(call.function, name, lambda own: own.key)
    args, kwargs = codec.loads(call.arguments)
    function = functions.resolve(call.function)
    args, kwargs = convert.bind(function.__wrapped__, args, kwargs)
    return key(*args, **kwargs)


def _joined(function: str, key: Any) -> str:
    text = key if isinstance(key, str) else codec.dumps(convert.plain(key), path="key")
    if len(text) > _MAX_KEY_CHARACTERS or "\0" in text:
        text = hashlib.sha256(text.encode()).hexdigest()
    return f"{function}:{text}"

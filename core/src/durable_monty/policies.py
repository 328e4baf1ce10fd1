"""How a function's calls are to be run: what its decorator says, as it is stored with the workflow.

A worker needs no user code to follow it: exception types are kept by name, because only names come back from a remote
machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from random import Random
from typing import Any

from durable_monty.models import Failure

DEFAULT_ON = ("Exception",)
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])")
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is followed by another.

    With `first_delay_seconds=1, factor=2`, attempts 1, 2, 3 are followed by waits of 1, 2, 4 seconds, each varied by
    up to `jitter` of itself.

    Attributes:
        attempts: Most attempts, the first included.
        on: Names of exception types; a failure counts if its type or one of its bases is among them.
        when: Path of the predicate that has the last word, or None.
    """

    attempts: int = 1
    first_delay_seconds: float = 1.0
    factor: float = 2.0
    max_delay_seconds: float = 60.0
    jitter: float = 0.1
    on: tuple[str, ...] = DEFAULT_ON
    when: str | None = None

    def delay_seconds(self, attempt: int, random: Random) -> float:
        """Seconds to wait after this attempt has failed; the first attempt is 1."""
        try:
            delay = min(self.first_delay_seconds * self.factor ** (attempt - 1), self.max_delay_seconds)
        except OverflowError:
            delay = self.max_delay_seconds
        return max(delay * (1 + random.uniform(-self.jitter, self.jitter)), 0.0)

    def allows(self, failure: Failure, attempt: int) -> bool:
        """Whether another attempt may follow `attempt`, which has ended with `failure`."""
        if attempt >= self.attempts or failure.kind not in ("user", "timeout"):
            return False
        return not {failure.type, *failure.bases}.isdisjoint(self.on)


NO_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What a function asks of its calls; None where it leaves the choice to the configuration.

    Attributes:
        total_timeout_seconds: How long the call may take over all attempts and the waits between them.
        heartbeat_seconds: How long a running attempt may be silent.
        concurrency: Most attempts of one key at the same time, over all workers.
        rate: Most attempts of one key that begin in a stretch of time, over all workers, such as `50/s`.
        key: Path of the function that tells a call's key; None: all calls of the function share one.
        key_value: The key itself, where one call names it.
    """

    executor: str | None = None
    queue: str | None = None
    priority: int = 0
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    is_idempotent: bool = False
    resources: Mapping[str, Any] | None = None
    total_timeout_seconds: float | None = None
    heartbeat_seconds: float | None = None
    concurrency: int | None = None
    rate: str | None = None
    key: str | None = None
    key_value: str | None = None

    @property
    def is_limited(self) -> bool:
        """Whether its calls wait for each other."""
        return self.concurrency is not None or self.rate is not None

    def overridden(self, values: Mapping[str, Any]) -> CallPolicy:
        """The policy with what one call asks for; `values` is like what `to_dict` gives."""
        if not values:
            return self
        changes = {name: value for name, value in values.items() if name in _FIELDS}
        if changes.get("retry") is not None:
            changes["retry"] = _retry(changes["retry"])
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """For storing: what differs from the defaults."""
        return {
            field.name: asdict(value) if isinstance(value, RetryPolicy) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CallPolicy:
        """What `to_dict` gave."""
        retry = values.get("retry")
        return cls(**{**values, "retry": None if retry is None else _retry(retry)})


def rate_per_second(rate: str) -> float:
    """How many may begin in a second.

    Raises:
        ValueError: It is not like `50/s`, `10/m` or `100/h`, or it is zero.
    """
    found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    per_second = float(found[1]) / _UNIT_SECONDS[found[2]] if found else 0.0
    if not MIN_RATE_PER_SECOND <= per_second <= MAX_RATE_PER_SECOND:
        raise ValueError(
            f"rate is {rate!r}; it must be like '50/s', '10/m' or '100/h', more than zero: at least one a week, and at "
            f"most {MAX_RATE_PER_SECOND:.0f} a second"
        )
    return per_second


MIN_RATE_PER_SECOND = 1 / (7 * 86400.0)
MAX_RATE_PER_SECOND = 1_000_000.0
_FIELDS = frozenset(field.name for field in fields(CallPolicy))


def _retry(values: Mapping[str, Any]) -> RetryPolicy:
    return RetryPolicy(**{**values, "on": tuple(values.get("on", DEFAULT_ON))})

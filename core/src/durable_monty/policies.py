"""How a function's calls are to be run: what its decorator says, as it is stored with the workflow.

A worker needs no user code to follow it: exception types are kept by name, because only names come back from a remote
machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any

from durable_monty.models import Failure

DEFAULT_ON = ("Exception",)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is followed by another.

    With `first_delay_seconds=1, factor=2`, attempts 1, 2, 3 are followed by waits of 1, 2, 4 seconds, each varied by
    up to `jitter` of itself.

    Attributes:
        attempts: Most attempts, the first included.
        on: Names of exception types; a failure counts if its type or one of its bases is among them.
    """

    attempts: int = 1
    first_delay_seconds: float = 1.0
    factor: float = 2.0
    max_delay_seconds: float = 60.0
    jitter: float = 0.1
    on: tuple[str, ...] = DEFAULT_ON

    def delay_seconds(self, attempt: int, random: Random) -> float:
        """Seconds to wait after this attempt has failed; the first attempt is 1."""
        delay = min(self.first_delay_seconds * self.factor ** (attempt - 1), self.max_delay_seconds)
        return max(delay * (1 + random.uniform(-self.jitter, self.jitter)), 0.0)

    def allows(self, failure: Failure, attempt: int) -> bool:
        """Whether another attempt may follow `attempt`, which has ended with `failure`."""
        if attempt >= self.attempts or failure.kind not in ("user", "timeout"):
            return False
        return not {failure.type, *failure.bases}.isdisjoint(self.on)


NO_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What a function asks of its calls; None where it leaves the choice to the configuration."""

    executor: str | None = None
    queue: str | None = None
    priority: int = 0
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    is_idempotent: bool = False
    resources: Mapping[str, Any] | None = None

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
        if retry is not None:
            retry = RetryPolicy(**{**retry, "on": tuple(retry.get("on", DEFAULT_ON))})
        return cls(**{**values, "retry": retry})

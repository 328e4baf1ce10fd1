"""The records that cross between the core and an executor plug-in, and the words for states.

Standard library only: a remote machine imports this module too. `from_json` and `to_json` are the tagged codec of
`durable_monty.codec` under the names that executor authors use.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from durable_monty import codec

FailureKind = Literal["user", "timeout", "cancelled", "refused", "lost", "unavailable", "undecodable", "ambiguous"]

FAILURE_KINDS: tuple[FailureKind, ...] = (
    "user",
    "timeout",
    "cancelled",
    "refused",
    "lost",
    "unavailable",
    "undecodable",
    "ambiguous",
)

INFRASTRUCTURE_KINDS: frozenset[FailureKind] = frozenset({"lost", "unavailable"})
"""Kinds that the engine tries again on a budget of its own; workflow code sees them only when that is spent."""

MAX_TOKEN_CHARACTERS = 1000
MAX_MESSAGE_CHARACTERS = 100_000
MAX_TRACEBACK_CHARACTERS = 200_000
_MAX_TYPE_CHARACTERS = 200


class ExecutionStatus(enum.StrEnum):
    """Where an execution is in its life."""

    SCHEDULED = "scheduled"
    """Stored; no line of it has run."""
    RUNNING = "running"
    """A worker holds it and is running a turn."""
    WAITING = "waiting"
    """Suspended: a snapshot and open calls or timers."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    """Kept from running until it is resumed."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will ever change it again."""
        return self in (self.COMPLETED, self.FAILED, self.CANCELLED)


class CallStatus(enum.StrEnum):
    """Where a call is in its life."""

    PENDING = "pending"
    """Durable, not handed to an executor (or to be handed over again when its retry is due)."""
    SUBMITTING = "submitting"
    """About to be handed to its executor, or handed over without a token worth storing."""
    SUBMITTED = "submitted"
    """The executor accepted it and its token is stored."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether its outcome is fixed."""
        return self in (self.COMPLETED, self.FAILED, self.CANCELLED)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed, as text: no exception object and no pickle crosses a process boundary.

    Attributes:
        kind: `user`: the function raised. `timeout`: it ran longer than allowed. `cancelled`: it was stopped on
            request. `refused`: it may not or cannot be run there. `lost`: nobody knows what became of it.
            `unavailable`: the back end does not answer. `undecodable`: its result cannot be carried or read.
            `ambiguous`: it may or may not have been started. It is tried again, as a lost one is, if the function
            is declared `idempotent=True`; otherwise this is the call's outcome.
        type: Name of the exception's type, such as `ValueError`.
        message: The exception's text; of one beyond 100,000 characters the middle is left out.
        traceback: The remote traceback as text, or an empty string; likewise beyond 200,000 characters.
        bases: Names of the exception type's base classes, nearest first, so that the sandbox can raise the nearest
            type that it knows.
    """

    kind: FailureKind
    type: str
    message: str
    traceback: str = ""
    bases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in FAILURE_KINDS:
            raise ValueError(f"failure kind {self.kind!r} is not one of {', '.join(FAILURE_KINDS)}")
        for name, most in (
            ("type", _MAX_TYPE_CHARACTERS),
            ("message", MAX_MESSAGE_CHARACTERS),
            ("traceback", MAX_TRACEBACK_CHARACTERS),
        ):
            text = getattr(self, name)
            if len(text) > most:
                object.__setattr__(self, name, clipped(text, most))


def clipped(text: str, most: int) -> str:
    """A text of about `most` characters at the most: its middle is left out, and how much that was is said."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n... ({len(text) - most} characters are left out here) ...\n{text[-(most // 2) :]}"


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt of one call, as an executor gets it.

    Attributes:
        job_id: `<execution_id>-<call_id>-<attempt>`: letters, digits, `-` and `_` only. The same attempt always has
            the same id, also when it is submitted again after a crash.
        function_name: Dotted path, `module.name`.
        arguments: The codec's text of `[args, kwargs]`.
        envelope: What `durable_monty.remote.run` takes; signed if a signing key is configured.
        attempt: Which try this is; the first is 1.
        timeout_seconds: How long the attempt may run, or None.
        queue: The queue asked for by the function or a route, or None for the executor's own.
        priority: Larger is sooner; 0 unless the function says otherwise.
        idempotency_key: `<execution_id>-<call_id>`, the same for every attempt.
        options: The function's `resources=`, for executors that size machines.
    """

    job_id: str
    execution_id: str
    call_id: int
    attempt: int
    function_name: str
    arguments: str
    envelope: bytes = field(repr=False)
    timeout_seconds: float | None = None
    queue: str | None = None
    priority: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments, decoded anew at each access."""
        return tuple(codec.loads(self.arguments)[0])

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments, decoded anew at each access."""
        return dict(codec.loads(self.arguments)[1])

    @property
    def idempotency_key(self) -> str:
        """The key that every attempt of this call shares."""
        return f"{self.execution_id}-{self.call_id}"


@dataclass(frozen=True, slots=True)
class Job:
    """An attempt that an executor accepted: its id and what the executor answered.

    Attributes:
        token: What `submit` returned in `Accepted.token`, or None.
    """

    job_id: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """`submit` started this call.

    Attributes:
        token: What is needed to find the work again from another process tomorrow: text of at most 1,000 characters,
            or None where the job id is enough. A token costs one write to the database.
    """

    job_id: str
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is not None and not (isinstance(self.token, str) and len(self.token) <= MAX_TOKEN_CHARACTERS):
            raise ValueError(
                f"the token for job {self.job_id!r} must be text of at most {MAX_TOKEN_CHARACTERS} characters"
            )


@dataclass(frozen=True, slots=True)
class Refused:
    """`submit` did not start this call.

    Attributes:
        reason: A sentence for the person who reads the error.
        retry_after_seconds: When to ask again; None means never: the call fails with kind `refused`.
    """

    job_id: str
    reason: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. Exactly one of `reply` and `failure` is set.

    Attributes:
        reply: What `durable_monty.remote.run` returned, untouched.
        failure: Why there is no reply.
    """

    job_id: str
    reply: bytes | None = field(default=None, repr=False)
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if (self.reply is None) == (self.failure is None):
            raise ValueError(f"the outcome of job {self.job_id!r} needs exactly one of reply and failure")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life of a running attempt, told like an outcome: returned from `poll` or handed to `context.deliver`.

    Attributes:
        message: What `durable_monty.remote.run` handed to its `heartbeat=`, untouched.
    """

    job_id: str
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a pre-flight check.

    Attributes:
        level: `info`: as it should be. `warning`: works, but a person may want to change it. `error`: calls will fail.
        remedy: What to do about it; empty for `info`.
    """

    level: Literal["info", "warning", "error"]
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an executor can do: declared in one class attribute, read by the core and by the conformance kit.

    Attributes:
        caller_ids: The back end uses our job id, so submitting it again does not run it twice.
        can_find: `find` can tell what became of a job.
        cancel: `cancel` can remove a queued job.
        pushes: It tells of every outcome by `context.deliver` or through the service; `poll` is not called.
        survives_restart: A job goes on, and its outcome can be polled, after the worker that submitted it died.
        keeps_results_seconds: How long the back end keeps an outcome that nobody completed; None: for ever, or as
            long as the process.
        max_payload_bytes: Largest envelope or reply; None: no limit of its own.
        max_batch: Most calls or jobs in one hook call.
        max_in_flight: Most jobs the core keeps open there at once; None: no bound.
        poll_interval_seconds: How long to wait after a `poll` without news; 0 where `poll` itself blocks.
        heartbeats: It carries `Heartbeat`s. The first tells that a job has begun to run, which starts its time limit.
        start_delay_seconds: Where it carries none: how long a job may wait there before it begins; the core counts its
            time limit from the submission and this on top.
        isolation: What a crashing function takes with it: `thread`: the worker; `process`: a process of its own;
            `machine`: another machine.
    """

    caller_ids: bool = False
    can_find: bool = False
    cancel: bool = False
    pushes: bool = False
    survives_restart: bool = False
    keeps_results_seconds: float | None = None
    max_payload_bytes: int | None = None
    max_batch: int = 1000
    max_in_flight: int | None = None
    poll_interval_seconds: float = 1.0
    heartbeats: bool = False
    start_delay_seconds: float = 0.0
    isolation: Literal["thread", "process", "machine"] = "process"


def job_id_of(execution_id: str, call_id: int, attempt: int) -> str:
    """The job id of one attempt: `<execution_id>-<call_id>-<attempt>`."""
    return f"{execution_id}-{call_id}-{attempt}"


def parse_job_id(job_id: str) -> tuple[str, int, int]:
    """The execution id, call id and attempt of a job id, read from the right.

    Raises:
        ValueError: It is not a job id of ours.
    """
    parts = job_id.rsplit("-", 2)
    if len(parts) != 3 or not parts[0] or not parts[1].isdecimal() or not parts[2].isdecimal():
        raise ValueError(f"{job_id!r} is not a job id of the form <execution_id>-<call_id>-<attempt>")
    return parts[0], int(parts[1]), int(parts[2])


def from_json(text: Any) -> Any:
    """Decode text of the tagged codec; anything that is not text is returned as it is."""
    return codec.loads(text) if isinstance(text, str | bytes) else text


def to_json(value: Any) -> str:
    """Encode a value with the tagged codec.

    Raises:
        durable_monty.errors.EncodeError: The value cannot be carried; the message names the path inside it.
    """
    return codec.dumps(value)

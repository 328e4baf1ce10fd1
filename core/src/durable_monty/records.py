"""The records that the store and the engine exchange: what one transaction makes durable, and what is read back.

Times are seconds since the epoch (UTC). `value_text` and `outcome` are text of the tagged codec, kept as text so that a
value is decoded only where the sandbox or a person needs it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from durable_monty.models import CallStatus, ExecutionStatus, Failure, job_id_of
from durable_monty.policies import CallPolicy


class CallKind(enum.StrEnum):
    """What a call in the log stands for. All kinds share the sandbox's numbering of calls."""

    FUNCTION = "function"
    """A host function, run by an executor."""
    TIMER = "timer"
    """`asyncio.sleep` or `time.sleep`: ends by itself at its due time."""
    CLOCK = "clock"
    """The clock was read; answered at once and recorded, so that a replay reads the same time."""
    SIGNAL = "signal"
    """Waits for a signal: ends when one of that name is there, or at its due time."""
    SEND = "send"
    """A signal to another execution: done in the transaction that records it."""
    CHILD = "child"
    """A child execution that is waited for: ends when that execution does."""
    START = "start"
    """A child execution that is started and left: done in the transaction that records it."""
    PUBLISH = "publish"
    """A value for outsiders to read, by key; answered at once."""
    EMIT = "emit"
    """An item of a stream for outsiders to read; answered at once."""
    CHANNEL = "channel"
    """Waits for another task of the same workflow; ends within a turn."""

    @property
    def is_answered(self) -> bool:
        """Whether its answer is known when it is made, so that it is never delivered."""
        return self in (CallKind.CLOCK, CallKind.PUBLISH, CallKind.EMIT)

    @property
    def is_done_by_store(self) -> bool:
        """Whether the transaction that records it does what it asks for, or looks whether that is there already."""
        return self in (CallKind.SIGNAL, CallKind.SEND, CallKind.CHILD, CallKind.START)


@dataclass(frozen=True, slots=True)
class FunctionRef:
    """A host function as a workflow knows it.

    Attributes:
        name: What the workflow calls it.
        path: Its dotted path.
        blocking: Whether it is called without `await`.
        policy: What its decorator says about its calls.
    """

    name: str
    path: str
    blocking: bool = False
    policy: CallPolicy = CallPolicy()


@dataclass(frozen=True, slots=True)
class WorkflowRecord:
    """A workflow as it is stored, once for all its executions.

    Attributes:
        digest: SHA-256 of what follows and of the stubs it was checked against.
        source: What the sandbox runs.
        lines: For each line of `source` the line in the user's file, 0 for lines that are not the user's.
        user_source: The user's own text, for people.
        first_line: The line in the user's file at which `user_source` begins.
        functions: Host functions by the name that the workflow uses.
        entry: The one global under which all inputs are handed over; empty: each input is a global.
        parameters: What it takes, by name, and whether it must be given.
        children: Digests of the workflows that it may start as children, by the name that it uses.
    """

    digest: str
    name: str
    filename: str
    source: str
    lines: tuple[int, ...]
    user_source: str
    first_line: int
    functions: Mapping[str, FunctionRef]
    entry: str = ""
    parameters: Mapping[str, bool] = field(default_factory=dict)
    children: Mapping[str, str] = field(default_factory=dict)

    def globals(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs as the sandbox takes them."""
        return {self.entry: inputs} if self.entry else inputs

    def with_digest(self, digest: str) -> WorkflowRecord:
        """The same record under its digest."""
        return replace(self, digest=digest)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The interpreter's state after a turn, as it is stored.

    Attributes:
        version: The execution's version that this state belongs to.
        monty_version: The Monty that wrote it.
        format: Monty's dump format, bytes 6-8 of a dump.
        digest: SHA-256, or HMAC-SHA256 with a signing key, over execution id, version and state.
        data: The state, compressed.
    """

    version: int
    monty_version: str
    format: int
    digest: bytes
    data: bytes = field(repr=False)


@dataclass(slots=True)
class CallRow:
    """One call as it is in the log.

    Attributes:
        line: Line in the user's file where the call stands; 0 if unknown.
        resources: What a machine must have, in the executor's words.
        lost: How often infrastructure failures have used up an attempt of it.
        worker: The worker that watches its job, or None.
        due_at: `pending`: not before. A timer: when it ends. At an executor: when the attempt times out;
            None: it is not known to have begun.
        outcome: The value's text, or a failure's text where the status is `failed` or `cancelled`.
        batch: Delivery order: the number of the resume that delivered the outcome; None: not delivered.
        position: Place within that resume.
        scope: The races that it runs in, outermost first, as `/`-separated call ids; empty outside any.
        limit_key: What shares a concurrency or rate limit with it, or None.
        policy: What this one call asks for beyond what its function says.
        expires_at: When its attempt, the call over all attempts, or its next sign of life is due; None: no such time.
        progress: What its last heartbeat reported, as the codec's text.
    """

    call_id: int
    kind: CallKind
    function: str
    arguments: str
    status: CallStatus
    line: int = 0
    blocking: bool = False
    executor: str | None = None
    queue: str | None = None
    priority: int = 0
    timeout_seconds: float | None = None
    resources: Mapping[str, Any] | None = None
    attempt: int = 1
    lost: int = 0
    worker: str | None = None
    token: str | None = None
    due_at: float | None = None
    created_at: float = 0.0
    ended_at: float | None = None
    outcome: str | None = None
    batch: int | None = None
    position: int | None = None
    scope: str = ""
    limit_key: str | None = None
    policy: Mapping[str, Any] | None = None
    expires_at: float | None = None
    progress: str | None = None


@dataclass(slots=True)
class DueCall:
    """A call that this worker has claimed and is about to submit."""

    execution_id: str
    row: CallRow


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of an attempt, to be recorded.

    Attributes:
        requires: Recorded only if the turn of this execution is recorded in the same transaction; None: in any case.
    """

    execution_id: str
    call_id: int
    attempt: int
    status: CallStatus
    outcome: str = field(repr=False)
    ended_at: float = 0.0
    requires: str | None = None


@dataclass(frozen=True, slots=True)
class HeardBeat:
    """A sign of life of an attempt.

    Attributes:
        at: When it was heard.
        progress: What it reported, as the codec's text; None: nothing new.
    """

    execution_id: str
    call_id: int
    attempt: int
    at: float
    progress: str | None = None

    @property
    def job_id(self) -> str:
        """The job that it is of."""
        return job_id_of(self.execution_id, self.call_id, self.attempt)

    def followed_by(self, later: HeardBeat) -> HeardBeat:
        """Both as one."""
        return later if later.progress is not None else replace(later, progress=self.progress)


@dataclass(frozen=True, slots=True)
class CallTimes:
    """When an attempt has to end, and when its call is to be looked at; None: never."""

    ends_at: float
    look_at: float | None


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """An attempt that failed and is followed by another: the call goes back to `pending`.

    Attributes:
        lost: How much this adds to the call's count of infrastructure failures: 1 or 0.
        expires_at: When the time for all attempts is over, or None.
    """

    execution_id: str
    call_id: int
    attempt: int
    failure: Failure
    due_at: float
    ended_at: float
    lost: int = 0
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An outcome that entered the sandbox, and when in the order of deliveries."""

    call_id: int
    batch: int
    position: int


@dataclass(slots=True)
class Turn:
    """What one turn makes durable, guarded by the execution's version.

    Attributes:
        version: The version this turn started from; it becomes `version + 1`.
        is_kept: Whether the worker keeps its claim after the turn.
        wake_at: When the execution is to be looked at again without news; None: only when something arrives.
        seen_wake_at: The wake-up time that this turn has dealt with; another one that is found stays.
        calls: Calls that the turn announced, clock answers included.
        cancelled: Calls that ended unanswered because the execution ended or was cancelled.
        settlements: Outcomes of older calls that follow from the turn itself.
        relies_on: Calls that it takes for ended by outcomes which are recorded with it. If the store has to refuse one of
            these, because another worker has ended the call or begun its next attempt, it refuses the turn.
        rescoped: Older calls whose scope has changed, with the new one; `scopes_before` has the old one.
        failure: How the workflow failed, for a parent that waits for it.
        last_turn: Of a failed execution: what has to be undone when it is retried.
        note: A sentence for `show`, such as "rebuilt from the log"; None keeps the old one.
        next_batch: Number of the next resume, counted over the execution's life.
        is_cancel_delivered: Whether a cancellation has entered the workflow.
    """

    execution_id: str
    version: int
    status: ExecutionStatus
    next_batch: int = 0
    is_kept: bool = False
    wake_at: float | None = None
    seen_wake_at: float | None = None
    calls: list[CallRow] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    relies_on: set[int] = field(default_factory=set)
    rescoped: dict[int, str] = field(default_factory=dict)
    scopes_before: dict[int, str] = field(default_factory=dict)
    failure: Failure | None = None
    last_turn: str | None = None
    snapshot: Snapshot | None = None
    output: str | None = None
    error: str | None = None
    note: str | None = None
    is_cancel_delivered: bool = False
    at: float = 0.0


@dataclass(slots=True)
class ExecutionRow:
    """One execution as it is stored, without its snapshot and calls.

    Attributes:
        parent: The execution that started it as its child, or None.
        parent_call: The parent's call that waits for its end; None: nobody waits.
        parent_close: `cancel`: it is cancelled when its parent ends; `abandon`: it goes on.
        deadline_at: When it is cancelled whatever it does, or None.
        memo: What its starter wanted to remember with it, as the codec's text.
        singleton_key: At most one living execution has this key.
        debounce_key: At most one execution that has not begun has this key.
        schedule: The schedule that started it, or None.
        last_turn: Of a failed one: what its last turn did, to be undone when it is retried.
    """

    id: str
    workflow: str
    status: ExecutionStatus
    version: int
    inputs: str
    created_at: float
    next_batch: int = 0
    worker: str | None = None
    wake_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    output: str | None = None
    error: str | None = None
    note: str | None = None
    crashes: int = 0
    cancel_deadline_at: float | None = None
    cancel_reason: str | None = None
    is_cancel_delivered: bool = False
    parent: str | None = None
    parent_call: int | None = None
    parent_close: str | None = None
    deadline_at: float | None = None
    memo: str | None = None
    singleton_key: str | None = None
    debounce_key: str | None = None
    schedule: str | None = None
    last_turn: str | None = None


@dataclass(slots=True)
class Claimed:
    """An execution that this worker has claimed, with all that a turn needs.

    Attributes:
        live_calls: Calls that are open, or ended and not delivered yet, by call id.
    """

    row: ExecutionRow
    workflow: WorkflowRecord
    snapshot: Snapshot | None
    live_calls: dict[int, CallRow]


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What a commit found.

    Attributes:
        stale: Executions whose turn was not recorded, because another worker had moved them on, or had ended a call
            of theirs in another way than the turn delivered.
        ignored: Job ids of settlements that came too late: the call had ended, or another attempt had begun.
        is_more: Whether an execution can be advanced again at once, by what the store has done for the turns.
    """

    stale: frozenset[str]
    ignored: frozenset[str]
    is_more: bool = False


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who holds a lease.

    Attributes:
        process_started: When the process was started, in clock ticks since boot, or 0 where that cannot be told; with
            host and pid it tells whether a worker on this host is still alive.
    """

    id: str
    host: str
    pid: int
    process_started: int

"""What the core tells observers: the second group of hooks, read-only, for metrics, traces and notifications.

An observer is an object with methods marked `@hookimpl`. A distribution names a class in the entry-point group
`durable_monty.observers`; the core calls `Observer(settings)` once per worker if the configuration names it in `observe`,
where `settings` is the class attribute `Settings`, a pydantic model, filled from `[observers.NAME]`. A script hands objects
over instead: `Worker(service, observers=[MyObserver()])`. Any number of observers is told, each of everything.

What holds for every hook but `trace_contexts`:

* It is called after the fact is durable, in the worker process that made it durable, in one thread that is there for
  observers only. So an observer needs no locks, and one that waits holds up other observers, not the executions.
* Facts come in the order in which they became durable here. Those that came together come in one call, up to
  `MAX_BATCH` of them. Each is told once: by the worker that recorded it, to each of its observers. It is told to nobody
  if that worker is killed first, or if the answer of its database is lost; what must not be missed is in the database.
* At most `MAX_QUEUED` facts wait for observers; what comes on top is dropped, counted and logged. So it is at the end of
  the worker with what observers have not heard within `STOP_SECONDS`.
* What it returns is ignored. What it raises is logged with its traceback once per observer and hook, and ignored.
* Nothing that it is given holds arguments or results. Texts of failures may say anything that a function has raised.
* An implementation takes only the arguments it uses, and implements only the hooks it wants.

Times are seconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from durable_monty.hookspecs import hookimpl, hookspec
from durable_monty.models import CallStatus, ExecutionStatus, Failure, job_id_of

__all__ = [
    "CallRetried",
    "CallSettled",
    "CallSubmitted",
    "ExecutionEnded",
    "ExecutionStarted",
    "ExecutionSuspended",
    "ObserverSpec",
    "SignalReceived",
    "StartingCall",
    "WorkerInfo",
    "hookimpl",
]

ENTRY_POINT_GROUP = "durable_monty.observers"

MAX_BATCH = 1_000
"""Most facts in one call of a hook."""
MAX_QUEUED = 20_000
"""Most facts that wait for observers in one worker."""
STOP_SECONDS = 5.0
"""How long a worker that ends waits for its observers."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The worker that an observer is told by.

    Attributes:
        id: Its id in the database; another one after it was taken for dead and has come back.
        open_jobs: Gives how many jobs are open, by executor; may be called at any time, from any thread.
        dropped: Gives how many facts were dropped so far because observers are too slow; likewise.
    """

    id: str
    open_jobs: Callable[[], Mapping[str, int]] = field(repr=False)
    dropped: Callable[[], int] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    """The first turn of an execution is durable.

    Attributes:
        workflow: The workflow's name.
        at: When the turn began.
        created_at: When the execution was stored.
        parent: The execution whose child it is, or None.
        schedule: The schedule that started it, or None.
    """

    execution_id: str
    workflow: str
    at: float
    created_at: float
    parent: str | None = None
    schedule: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionSuspended:
    """A turn has made its calls durable, and the execution waits.

    Attributes:
        wake_at: When it goes on without news, because of a timer or a deadline; None: at news only.
    """

    execution_id: str
    workflow: str
    at: float
    wake_at: float | None = None


@dataclass(frozen=True, slots=True)
class ExecutionEnded:
    """The end of an execution is durable.

    Attributes:
        status: `completed`, `failed` or `cancelled`.
        started_at: When its first turn began; None: it was cancelled before.
        error_type: Of a failed one: the type of the exception.
        error: Of one that is not completed: the text that `show` shows, tracebacks included.
    """

    execution_id: str
    workflow: str
    at: float
    status: ExecutionStatus
    created_at: float
    started_at: float | None = None
    parent: str | None = None
    schedule: str | None = None
    error_type: str | None = None
    error: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CallEvent:
    """What all facts about calls say.

    Attributes:
        attempt: The attempt that it is about; the first is 1.
        function: The function's dotted path; empty if it could not be had.
        executor: The executor's name; None: it never got that far.
        created_at: When the call was made.
    """

    execution_id: str
    call_id: int
    attempt: int
    function: str
    executor: str | None
    created_at: float
    at: float

    @property
    def job_id(self) -> str:
        """The attempt as its executor knows it: `<execution_id>-<call_id>-<attempt>`."""
        return job_id_of(self.execution_id, self.call_id, self.attempt)


@dataclass(frozen=True, slots=True)
class StartingCall(CallEvent):
    """An attempt that is about to be handed to its executor."""


@dataclass(frozen=True, slots=True)
class CallSubmitted(CallEvent):
    """An executor has accepted an attempt.

    Attributes:
        line: Where the call stands in the user's file; 0 if unknown.
    """

    line: int = 0


@dataclass(frozen=True, slots=True)
class CallSettled(CallEvent):
    """The outcome of a call is durable; there will be no other.

    Attributes:
        status: `completed`, `failed` or `cancelled`.
        failure: Why it is not completed.
    """

    status: CallStatus = CallStatus.COMPLETED
    failure: Failure | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CallRetried(CallEvent):
    """An attempt has failed, and it is durable that another follows.

    Attributes:
        failure: Why this attempt failed.
        due_at: When the next one may begin.
        is_lost: Whether it counts against the budget of the infrastructure, and not against the function's attempts.
    """

    failure: Failure = field(default=Failure("lost", "Lost", ""), repr=False)
    due_at: float = 0.0
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A signal has entered a workflow that waited for it."""

    execution_id: str
    name: str
    at: float


class ObserverSpec:
    """The hook specifications; every hook is called for every observer that implements it."""

    @hookspec
    def worker_started(self, worker: WorkerInfo) -> None:
        """A worker begins to work.

        Called by: the observers' thread, once per worker, before any other hook but `trace_contexts`.
        Durable by then: the worker's lease is not; nothing else depends on this.
        """

    @hookspec
    def worker_stopped(self, worker: WorkerInfo) -> None:
        """A worker ends in an orderly way: flush, close connections.

        Called by: the observers' thread, once per worker, after the last other hook; not if the worker is killed, nor if
            observers did not keep up with it at its end. The worker waits `STOP_SECONDS` for it at most.
        Durable by then: everything that the worker has done.
        """

    @hookspec
    def executions_started(self, executions: Sequence[ExecutionStarted]) -> None:
        """The first turns of these executions are durable.

        Called by: the observers' thread, after the commit of the turn and before anything else is told of the execution.
        Called again: never for the same execution, unless it was started anew under its id (`id_reuse="restart"`).
        Durable by then: the execution, its first calls and its first snapshot, or its end.
        """

    @hookspec
    def executions_suspended(self, executions: Sequence[ExecutionSuspended]) -> None:
        """These executions wait for outcomes, signals or a time.

        Called by: the observers' thread, after the commit of each turn that did not end its execution. A turn that only
            took in an outcome and made no call is not committed, and not told.
        Called again: once for each such turn; a busy execution is suspended as often as it makes calls.
        Durable by then: the snapshot and the calls of the turn.
        """

    @hookspec
    def executions_ended(self, executions: Sequence[ExecutionEnded]) -> None:
        """These executions are over.

        Called by: the observers' thread, after the commit of the last turn, and after `calls_settled` for the calls that
            ended with it. Not for one that is cancelled before it has begun: that is done by whoever cancels it.
        Called again: for a failed execution that is retried (`service.retry`), when it ends again.
        Durable by then: the end, the result or the error, and for a child the outcome that its parent gets.
        """

    @hookspec
    def calls_submitted(self, calls: Sequence[CallSubmitted]) -> None:
        """Executors have accepted these attempts.

        Called by: the observers' thread, after `submit` has answered. Not for an attempt that was
            refused.
        Called again: for the same attempt if it is submitted again, because an executor gave it back or because
            its worker died before the answer was known; `job_id` is the same.
        Durable by then: the call, its arguments, the snapshot that announced it, and the token, unless the database does
            not answer just then.
        """

    @hookspec
    def calls_settled(self, calls: Sequence[CallSettled]) -> None:
        """The outcomes of these calls are fixed: values, failures, cancellations.

        Called by: the observers' thread, after the commit of the outcome; also for calls that were never submitted, because
            they were refused, or cancelled first.
        Called again: never for the same call, except that a retried execution makes the call that failed again. A
            call that was ended by `complete_call` or `fail_call` is told by the worker that has its job, if it
            also holds its execution; by nobody else.
        Durable by then: the outcome. Whether the workflow has it yet is not said.
        """

    @hookspec
    def calls_retried(self, calls: Sequence[CallRetried]) -> None:
        """These attempts have failed and will be followed by others.

        Called by: the observers' thread, after the commit that makes the call `pending` again.
        Called again: once for each failed attempt but the last, whose failure is in `calls_settled`.
        Durable by then: the attempt's failure, and when the next one is due.
        """

    @hookspec
    def signals_received(self, signals: Sequence[SignalReceived]) -> None:
        """Workflows have got signals that they waited for.

        Called by: the observers' thread, after the commit of the turn that took the signal in; not when it is sent.
        Called again: never for the same signal.
        Durable by then: the delivery.
        """

    @hookspec
    def trace_contexts(self, calls: Sequence[StartingCall]) -> Mapping[str, str]:
        """Give each of these attempts a trace context that travels in its envelope to the function.

        Called by: the dispatcher, in the worker's main thread, before the attempts are handed to their executor; the only
            hook that the worker waits for, so it must be quick, and its implementation safe beside the observers' thread.
        Called again: for the same attempt if it is submitted again; answer the same.
        Return: by job id, text in the form of the W3C `traceparent` header, at most 512 characters; attempts that are
            left out get none. The first observer that names an attempt decides.
        Raise: anything; it is logged once, and the attempts are submitted without.
        Durable by then: the calls, as `submitting`. What is returned is not stored.
        """
        return {}

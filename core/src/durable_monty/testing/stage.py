"""The executor of a `WorkflowTest`: runs host functions, or what stands in for them, at virtual times."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from durable_monty import remote
from durable_monty.envelope import encode_heartbeat
from durable_monty.errors import FunctionError
from durable_monty.functions import Function, FunctionOptions, get_function, normalized, replaced
from durable_monty.hookspecs import ExecutorContext, hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Failure, Heartbeat, Job, Outcome, Refused

T = TypeVar("T")
Named = Function[Any] | Callable[..., Any] | str
"""A host function: itself, its dotted path, or its name."""


@dataclass(slots=True)
class MadeCall:
    """One attempt of a call of a host function, as the test saw it.

    Attributes:
        function: The function's name, without its module.
        attempt: Which attempt of the call; the first is 1.
        at: When it was begun, in virtual time.
        status: `running`, `completed`, `failed`, `cancelled`, or `lost` (by `WorkflowTest.restart`).
        value: What it gave, once completed.
        error: What went wrong, once failed, as `Type: message`.
    """

    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    execution_id: str
    attempt: int
    at: dt.datetime
    status: str = "running"
    value: Any = None
    error: str | None = None


@dataclass(slots=True)
class Fault:
    """A failure that was asked for, and whether it has come about."""

    name: str
    runs: range
    failure: Failure
    is_met: bool = False


@dataclass(slots=True)
class _Open:
    call: Call
    made: MadeCall
    fault: Fault | None
    timed_out: bool


@dataclass(slots=True)
class Stage:
    """Runs each call in its turn; one that takes time ends when the clock has come so far."""

    clock: Callable[[], float]
    is_strict: bool
    made: list[MadeCall] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _stand_ins: list[tuple[str, Callable[..., Any]]] = field(default_factory=list)
    _seconds: list[tuple[str, float | Callable[..., float]]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _open: dict[str, _Open] = field(default_factory=dict)
    _due: list[tuple[float, int, str]] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)
    _deliver: Callable[[Sequence[Outcome | Heartbeat]], None] = field(default=lambda outcomes: None)

    @property
    def capabilities(self) -> Capabilities:
        """It tells of outcomes itself, and its jobs end with the process."""
        return Capabilities(cancel=True, pushes=True, heartbeats=True, isolation="thread")

    # What a test asks for

    def replace(self, function: Named, stand_in: Callable[..., Any]) -> None:
        """Run this instead of the function."""
        if not callable(stand_in):
            raise TypeError(
                f"replacing {name_of(function)!r}: {stand_in!r:.100} is not a function; write for example "
                f"`lambda *args: {stand_in!r:.20}`"
            )
        self._stand_ins.append((name_of(function), stand_in))

    def takes(self, function: Named, seconds: float | Callable[..., float]) -> None:
        """Let each run of the function take so long."""
        self._seconds.append((name_of(function), seconds))

    def add_fault(self, function: Named, runs: range, failure: Failure) -> None:
        """Let these runs of the function, counted from 1, fail."""
        name = name_of(function)
        if runs.start <= self.runs_of(name):
            raise ValueError(
                f"failing run {runs.start} of {name!r}: it has been run {self.runs_of(name)} times already"
            )
        self.faults.append(Fault(name, runs, failure))

    def runs_of(self, function: Named) -> int:
        """How often the function has been run, every attempt counted."""
        return sum(count for path, count in self._counts.items() if _is_named(path, name_of(function)))

    @property
    def is_running(self) -> bool:
        """Whether a run has begun and not ended."""
        return bool(self._open)

    @property
    def next_due_at(self) -> float | None:
        """When the next run ends that takes time."""
        while self._due and self._due[0][2] not in self._open:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def finish_due(self) -> None:
        """End the runs whose time has come."""
        while (due_at := self.next_due_at) is not None and due_at <= self.clock():
            self._finish(heapq.heappop(self._due)[2])

    def die(self) -> None:
        """Lose every run that has not ended."""
        for item in self._open.values():
            item.made.status = "lost"
        self._open.clear()
        self._due.clear()

    # Hooks

    @hookimpl
    def start(self, context: ExecutorContext) -> None:
        """Remember where outcomes go."""
        self._deliver = context.deliver

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Begin each call; one that takes no time ends at once."""
        for call in calls:
            self._begin(call)
        return [Accepted(call.job_id) for call in calls]

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome]:
        """No news: outcomes are told."""
        return []

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None:
        """Nothing to forget."""

    @hookimpl
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """Runs that have not ended never will."""
        found = {job.job_id: self._open.pop(job.job_id, None) for job in jobs}
        for item in found.values():
            if item is not None:
                item.made.status = "cancelled"
        return {job_id: item is not None for job_id, item in found.items()}

    def _begin(self, call: Call) -> None:
        path = call.function_name
        self._counts[path] = self._counts.get(path, 0) + 1
        at = dt.datetime.fromtimestamp(self.clock(), dt.UTC)
        made = MadeCall(
            path.rpartition(".")[2], tuple(call.args), dict(call.kwargs), call.execution_id, call.attempt, at
        )
        self.made.append(made)
        given = _last(path, self._seconds)
        seconds = given(*call.args, **call.kwargs) if callable(given) else given or 0.0
        timed_out = call.timeout_seconds is not None and seconds > call.timeout_seconds
        self._open[call.job_id] = _Open(call, made, self._fault(path), timed_out)
        if timed_out and call.timeout_seconds is not None:
            seconds = call.timeout_seconds
        if seconds <= 0:
            self._finish(call.job_id)
        else:
            heapq.heappush(self._due, (self.clock() + seconds, next(self._numbers), call.job_id))
            self._deliver([Heartbeat(call.job_id, encode_heartbeat(call.job_id, None, remote.signing_key()))])

    def _fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if _is_named(path, fault.name) and self.runs_of(fault.name) in fault.runs:
                fault.is_met = True
                return fault
        return None

    def _finish(self, job_id: str) -> None:
        item = self._open.pop(job_id)
        outcome = self._outcome(item)
        failure = outcome.failure
        if outcome.reply is not None:
            read = remote.read_reply(outcome.reply)
            item.made.value, failure = read.value, read.failure
        item.made.status = "completed" if failure is None else "failed"
        item.made.error = None if failure is None else f"{failure.type}: {failure.message}"
        self._deliver([outcome])

    def _outcome(self, item: _Open) -> Outcome:
        call = item.call
        if item.fault is not None:
            return Outcome(call.job_id, failure=item.fault.failure)
        if item.timed_out:
            message = f"{call.function_name} ran longer than {call.timeout_seconds} s"
            return Outcome(
                call.job_id, failure=Failure("timeout", "TimeoutError", message, bases=("OSError", "Exception"))
            )
        stand_in = _last(call.function_name, self._stand_ins)
        if stand_in is not None:
            with replaced(call.function_name, _disguised(call.function_name, stand_in)):
                return self._run(call)
        if self.is_strict:
            message = f"{call.function_name} was called and nothing stands in for it; name it in `functions`"
            return Outcome(call.job_id, failure=Failure("refused", "NotReplaced", message))
        return self._run(call)

    def _run(self, call: Call) -> Outcome:
        """Run a call in a thread of its own, so that the test itself may have an event loop."""
        replies: list[bytes] = []

        def beat(message: bytes) -> None:
            self._deliver([Heartbeat(call.job_id, message)])

        thread = threading.Thread(target=lambda: replies.append(remote.run(call.envelope, beat)))
        thread.start()
        thread.join()
        return Outcome(call.job_id, reply=replies[0])


def name_of(function: Named) -> str:
    """The dotted path of a function, or the name that was given."""
    if isinstance(function, str):
        return normalized(function)
    return function.path if isinstance(function, Function) else f"{function.__module__}.{function.__qualname__}"


def _last(path: str, settings: Sequence[tuple[str, T]]) -> T | None:
    """What was said last about this function."""
    return next((value for name, value in reversed(settings) if _is_named(path, name)), None)


def _is_named(path: str, name: str) -> bool:
    return name in (path, path.rpartition(".")[2])


def _disguised(path: str, stand_in: Callable[..., Any]) -> Function[Any]:
    """The stand-in as a host function: arguments are converted as the real function's annotations say."""
    try:
        real = get_function(path)
    except FunctionError:
        real = stand_in
    original = real.__wrapped__ if isinstance(real, Function) else real

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        value = stand_in(*args, **kwargs)
        return asyncio.run(value) if asyncio.iscoroutine(value) else value

    return Function(run, FunctionOptions())

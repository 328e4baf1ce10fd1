"""One execution in the sandbox: run it from suspension to suspension.

A session stands either at a suspension, where it can be dumped and takes outcomes, or at its end. Everything that
enters is returned to the caller to be recorded: the order in which outcomes were delivered, and clock answers.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pydantic_monty as monty

from durable_monty import codec
from durable_monty.errors import EncodeError
from durable_monty.interpreter import operations, scopes
from durable_monty.interpreter.budget import Budget, OverLimit
from durable_monty.interpreter.operations import FLOW, MAX_SECONDS
from durable_monty.interpreter.values import UnawaitedCall, from_sandbox, to_answer, unawaited
from durable_monty.models import Failure
from durable_monty.overrides import OPTIONS, call_overrides
from durable_monty.records import CallKind

if TYPE_CHECKING:
    from durable_monty.records import FunctionRef

_CLOCKS = frozenset({"datetime.now", "date.today", "time.time"})
_TIMERS = frozenset({"asyncio.sleep", "time.sleep"})
_IMPORTS = frozenset({"import", "import_stubs"})
_MAX_BATCH_CHARACTERS = 64 * 1024 * 1024
"""Monty takes no more than 256 MiB at a time."""
_LIMIT_SETTINGS = {
    "memory limit": "[interpreter] max_memory_bytes",
    "time limit": "[interpreter] max_turn_seconds",
    "suspension limit": "start what goes on for ever as a new execution now and then",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a call as the sandbox takes it: a value's text, or a failure.

    Attributes:
        scope: The scope of the call.
    """

    call_id: int
    value_text: str | None = None
    failure: Failure | None = None
    scope: str = ""

    def as_result(self) -> Any:
        """The answer in Monty's form."""
        if self.failure is not None:
            return to_answer(self.failure)
        return {"return_value": codec.loads(self.value_text or "null")}


@dataclass(slots=True)
class Announced:
    """A call that the workflow made in this turn.

    Attributes:
        line: Line of the call in the user's file; 0 inside a `durable_monty.flow` helper.
        seconds: How long it waits at most; None: for ever. For a timer: how long it sleeps.
        answer: For a call that is answered at once: what was answered, as the codec's text.
        scope: The races that it runs in (`durable_monty.interpreter.scopes`).
        policy: What `options` asked for this call, as it is stored.
    """

    call_id: int
    kind: CallKind
    function: str
    arguments: str
    line: int
    blocking: bool = False
    seconds: float | None = None
    answer: str | None = None
    scope: str = ""
    policy: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that the workflow told about its races and channels.

    Attributes:
        what: `_open`: a race or a part of it begins, and calls that were made before run in it. `_close`: a race is over. `_put`: there
            is something in a channel.
        subject: The scope of the race, or the channel.
        calls: For `_open`: the calls.
    """

    what: str
    subject: str
    calls: tuple[int, ...] = ()


Consequences = Callable[["Progress"], Sequence[Answer]]
"""Looks at what the last resume did; returns answers that follow from it."""


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that left the workflow.

    Attributes:
        frames: Monty's frames from the outermost inwards; lines and columns of the fed source, counted from 1.
        is_limit: Whether a limit of the sandbox ended it, so that the session is of no more use.
    """

    type: str
    message: str
    frames: Sequence[Any] = ()
    is_limit: bool = False


class UndumpableState(Exception):
    """The state of a workflow at a suspension cannot be had.

    Attributes:
        raised: Why, as if the workflow had raised it.
    """

    def __init__(self, raised: Raised) -> None:
        message = f"the state of the workflow cannot be stored: {raised.message}"
        self.raised = Raised(raised.type, message, is_limit=True)
        super().__init__(message)


@dataclass(slots=True)
class Progress:
    """What one advance did.

    Attributes:
        announced: New calls in the order in which they were made.
        batches: Call ids in the order of delivery, one inner list per resume.
        marks: What happened to races and channels since they were last looked at, in order.
        is_finished: Whether the workflow has ended: with `output` (text of the codec) or with `raised`.
    """

    announced: list[Announced] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    is_finished: bool = False
    output: str | None = None
    raised: Raised | None = None


class Session:
    """A checked-out sandbox at a suspension of one execution.

    Not thread-safe; closed exactly once, by `close`.
    """

    def __init__(
        self,
        raw: monty.MontySession,
        stack: ExitStack,
        functions: Mapping[str, FunctionRef],
        line_of: Callable[[int], int],
        now: Callable[[], dt.datetime],
        on_print: Callable[[str], None],
        budget: Budget,
    ) -> None:
        self._raw = raw
        self._stack = stack
        self._functions = functions
        self._line_of = line_of
        self._now = now
        self._on_print = on_print
        self._budget = budget
        self._recorded_clocks: Mapping[int, str] = {}
        self._position: Any = None
        self._scope = ""
        self._is_scoped = any(ref.path == f"{FLOW}._open" for ref in functions.values())

    def begin_turn(self, open_calls: int) -> None:
        """Count anew what a turn may use; so many calls are open."""
        self._budget.begin(open_calls)

    def start(
        self, source: str, inputs: Mapping[str, Any], recorded_clocks: Mapping[int, str] | None = None
    ) -> Progress:
        """Run the workflow from its first line to its first suspension.

        Args:
            recorded_clocks: In a replay, the clock answers by call id; others are read from the clock.
        """
        self._recorded_clocks = recorded_clocks or {}
        progress = Progress()
        self._run(
            progress,
            lambda: self._raw.feed_start(source, inputs=dict(inputs), print_callback=self._print),
        )
        return progress

    def load(self, state: bytes) -> None:
        """Stand where `state` was dumped.

        Raises:
            pydantic_monty.MontyError: The state cannot be read by this Monty.
        """
        self._position = self._raw.load_snapshot(state, print_callback=self._print)

    def dump(self) -> bytes:
        """The state at this suspension; the session stays usable.

        Raises:
            UndumpableState: It takes more memory than a sandbox process may have.
        """
        try:
            state: bytes = self._position.dump()
        except monty.MontyRuntimeError as error:
            raise UndumpableState(_raised(error)) from error
        return state

    @property
    def pending_call_ids(self) -> set[int]:
        """The calls whose answers would be taken now: the one blocking call, or every awaited one."""
        if isinstance(self._position, monty.FunctionSnapshot):
            return {self._position.call_id}
        if isinstance(self._position, monty.FutureSnapshot):
            return set(self._position.pending_call_ids)
        return set()

    @property
    def line(self) -> int:
        """The line in the user's file at which the main task waits; 0 if it has ended or waits in a helper."""
        return self._line_of(self._position.position.start) if self._position is not None else 0

    def advance(
        self, answers: Sequence[Answer], consequences: Consequences, progress: Progress | None = None
    ) -> Progress:
        """Deliver answers in their order and run to the next suspension at which none of them can be taken.

        Answers to calls that the sandbox does not wait for now stay undelivered.

        Args:
            consequences: Asked after each resume for answers that follow from it; they are delivered after the others.
            progress: Of the run just before, whose consequences are asked for first.
        """
        waiting = {answer.call_id: answer for answer in answers}
        if progress is None:
            progress = Progress()
        else:
            waiting |= {answer.call_id: answer for answer in consequences(progress)}
        while waiting and not progress.is_finished:
            batch = self._next_batch(waiting)
            if not batch:
                break
            for answer in batch:
                del waiting[answer.call_id]
            self.deliver(batch, progress)
            waiting |= {answer.call_id: answer for answer in consequences(progress)}
        return progress

    def _next_batch(self, waiting: Mapping[int, Answer]) -> list[Answer]:
        wanted = self.pending_call_ids
        takeable = [answer for answer in waiting.values() if answer.call_id in wanted]
        if not self._is_scoped:
            return _within_a_frame(takeable)
        # One at a time: only then is it known which task goes on.
        return takeable[:1]

    def deliver(self, batch: Sequence[Answer], progress: Progress) -> None:
        """Deliver these answers in one resume; each must be one of `pending_call_ids`."""
        position = self._position
        self._scope = batch[0].scope
        results = {answer.call_id: answer.as_result() for answer in batch}
        progress.batches.append(list(results))
        self._budget.delivered(len(results))
        if isinstance(position, monty.FunctionSnapshot):
            self._run(progress, lambda: position.resume(results[position.call_id]))
        else:
            self._run(progress, lambda: position.resume(results))

    def set_recorded_clocks(self, recorded: Mapping[int, str]) -> None:
        """From now on answer these clock calls from the log instead of the clock."""
        self._recorded_clocks = recorded

    def close(self) -> None:
        """Give the sandbox back to the pool."""
        self._position = None
        self._stack.close()

    def _print(self, _stream: str, text: str) -> None:
        shown = self._budget.shown(text)
        if shown:
            self._on_print(shown)

    def _run(self, progress: Progress, first: Callable[[], Any]) -> None:
        """Answer suspensions until the workflow waits for an outcome or ends."""
        try:
            position = first()
            while True:
                if isinstance(position, monty.FunctionSnapshot):
                    self._budget.suspend()
                    following = self._on_call(position, progress)
                    if following is None:
                        break
                    position = following
                elif isinstance(position, monty.NameLookupSnapshot):
                    self._budget.suspend()
                    position = self._on_name(position)
                else:
                    break
        except monty.MontyRuntimeError as error:
            self._position = None
            progress.is_finished = True
            progress.raised = _raised(error)
            return
        except OverLimit as error:
            self._position = None
            progress.is_finished = True
            progress.raised = Raised(error.type, str(error), is_limit=True)
            return
        self._position = position
        if isinstance(position, monty.MontyComplete):
            self._finish(position, progress)

    def _finish(self, position: monty.MontyComplete, progress: Progress) -> None:
        progress.is_finished = True
        try:
            output = codec.dumps(_taken_out(lambda: position.output, "result"), path="result")
            progress.output = self._budget.fit(output, "the result of the workflow")
        except UnawaitedCall as unawaited:
            progress.raised = Raised("RuntimeError", self._forgot(unawaited, progress, "the result"))
        except EncodeError as error:
            progress.raised = Raised("TypeError", str(error))
        except ValueError as error:
            progress.raised = Raised("ValueError", str(error))

    def _forgot(self, unawaited: UnawaitedCall, progress: Progress, where: str) -> str:
        made = next((call for call in progress.announced if call.call_id == unawaited.call_id), None)
        name = f"{made.function.rpartition('.')[2]}()" if made else f"call {unawaited.call_id}"
        at = f"line {made.line}" if made else "an earlier line"
        return f"{where} holds {name} of {at} itself instead of its value; write `await` in front of it"

    def _on_name(self, position: monty.NameLookupSnapshot) -> Any:
        name = position.variable_name
        if position.object_id is not None or name not in self._functions:
            return position.resume()
        return position.resume(value=_stand_in(name))

    def _on_call(self, position: monty.FunctionSnapshot, progress: Progress) -> Any:
        """Answer a call; None if the whole workflow has to wait for its outcome."""
        name = str(position.function_name)
        if position.is_os_function:
            return self._on_system_call(position, name, progress)
        reference = self._functions.get(name) if position.object_id is None else None
        if reference is None:
            return position.resume({"exc_type": "NameError", "message": f"name '{name}' is not defined"})
        operation = reference.path.removeprefix(f"{FLOW}.") if reference.path.startswith(f"{FLOW}.") else None
        try:
            if operation in operations.MARKS:
                return position.resume({"return_value": self._mark(operation, position, progress)})
            args, kwargs = self._arguments(position)
            if operation is not None:
                return self._on_operation(position, operations.read(operation, args, kwargs), args, kwargs, progress)
            policy = call_overrides(kwargs.pop(OPTIONS)) if OPTIONS in kwargs else None
            arguments = self._arguments_text(name, args, kwargs)
        except UnawaitedCall as unawaited:
            message = self._forgot(unawaited, progress, f"an argument of {name}()")
            return position.resume({"exc_type": "RuntimeError", "message": message})
        except (TypeError, ValueError) as error:
            kind: Literal["TypeError", "ValueError"] = "TypeError" if isinstance(error, TypeError) else "ValueError"
            return position.resume({"exc_type": kind, "message": str(error)})
        self._announce(
            position,
            progress,
            CallKind.FUNCTION,
            reference.path,
            arguments,
            blocking=reference.blocking,
            policy=policy,
        )
        return None if reference.blocking else position.resume({"future": ...})

    def _on_operation(
        self,
        position: monty.FunctionSnapshot,
        operation: operations.Operation,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        progress: Progress,
    ) -> Any:
        """A call of a helper that the engine serves."""
        self._announce(
            position,
            progress,
            operation.kind,
            operation.target,
            self._arguments_text(f"{position.function_name}", args, kwargs),
            blocking=operation.blocking,
            seconds=operation.seconds,
            answer="null" if operation.is_answered else None,
        )
        return position.resume({"return_value": None} if operation.is_answered else {"future": ...})

    def _mark(self, what: str, position: monty.FunctionSnapshot, progress: Progress) -> str | None:
        """Take note of where a task runs, and answer."""
        said = operations.read_mark(what, position.args, position.kwargs)
        subject = said.subject
        if what == "_here":
            if said.awaitables is not None:
                # What was called before a race began, and is awaited within it, runs in it.
                progress.marks.append(Mark("_open", self._scope, _calls_among(said.awaitables)))
            return self._scope
        if what == "_box":
            return str(position.call_id)
        if what == "_open":
            subject = self._scope = scopes.inner(subject, position.call_id)
            progress.marks.append(Mark(what, subject, _calls_among(said.awaitables or ())))
            return subject
        if what == "_enter":
            self._scope = subject
            return None
        if what == "_close":
            self._scope = scopes.after(subject)
        progress.marks.append(Mark(what, subject))
        return None

    def _announce(
        self,
        position: monty.FunctionSnapshot,
        progress: Progress,
        kind: CallKind,
        function: str,
        arguments: str,
        *,
        blocking: bool = False,
        seconds: float | None = None,
        answer: str | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> None:
        self._budget.announce(is_answered=answer is not None)
        line = self._line_of(position.position.start)
        progress.announced.append(
            Announced(position.call_id, kind, function, arguments, line, blocking, seconds, answer, self._scope, policy)
        )

    def _arguments_text(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        named = codec.dumps(kwargs, path="kwargs") if kwargs else "{}"
        text = f"[{codec.dumps(args, path='args')},{named}]"
        return self._budget.fit(text, f"what is passed to {name}()")

    def _arguments(self, position: monty.FunctionSnapshot) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = _taken_out(lambda: [list(position.args), position.kwargs], "the arguments")
        return args, kwargs

    def _on_system_call(self, position: monty.FunctionSnapshot, name: str, progress: Progress) -> Any:
        if name in _TIMERS:
            blocking = name == "time.sleep"
            asked = float(position.args[0])
            if math.isnan(asked):
                return position.resume({"exc_type": "ValueError", "message": f"{name}() takes a number, not {asked}"})
            seconds = min(max(asked, 0.0), MAX_SECONDS)
            arguments = codec.dumps([[seconds], {}])
            self._announce(position, progress, CallKind.TIMER, name, arguments, blocking=blocking, seconds=seconds)
            return None if blocking else position.resume({"future": ...})
        if name in _CLOCKS:
            answer = self._recorded_clocks.get(position.call_id)
            if answer is None:
                answer = codec.dumps(self._read_clock(name, position.args))
            arguments = codec.dumps([list(position.args), {}])
            self._announce(position, progress, CallKind.CLOCK, name, arguments, answer=answer)
            return position.resume({"return_value": codec.loads(answer)})
        if name in _IMPORTS:
            return position.resume_auto()
        return position.resume_not_handled()

    def _read_clock(self, name: str, args: Sequence[Any]) -> Any:
        now = self._now()
        if name == "date.today":
            return now.date()
        if name == "time.time":
            # Also for time.monotonic: only the wall clock means the same on another machine tomorrow.
            return now.timestamp()
        zone = args[0] if args else None
        return now.astimezone(zone) if zone is not None else now.replace(tzinfo=None)


def _calls_among(awaitables: Sequence[Any]) -> tuple[int, ...]:
    return tuple(call_id for item in awaitables if (call_id := unawaited(item)) is not None)


def _within_a_frame(answers: Sequence[Answer]) -> list[Answer]:
    """The first answers that go into the sandbox together; what is large goes in parts."""
    size = 0
    for count, answer in enumerate(answers):
        size += len(answer.value_text or "")
        if count and size > _MAX_BATCH_CHARACTERS:
            return list(answers[:count])
    return list(answers)


def _taken_out(read: Callable[[], Any], what: str) -> Any:
    """A value that comes out of the sandbox.

    Raises:
        EncodeError: It cannot come out.
        UnawaitedCall: It is or holds a call that was not awaited.
    """
    try:
        value = read()
    except TypeError as error:
        # What stands for a class instance out here cannot be hashed.
        raise EncodeError(
            f"encoding {what}: a class instance cannot be carried as a member of a set or a key of a dictionary; "
            "use a list, or keys that are texts, numbers or tuples"
        ) from error
    return from_sandbox(value)


def _stand_in(name: str) -> Callable[[], None]:
    """A function value for the sandbox; calls of it arrive under its `__name__`."""

    def host_function() -> None: ...

    host_function.__name__ = name
    return host_function


def _raised(error: monty.MontyRuntimeError) -> Raised:
    kind, _, message = error.display("type-msg").partition(": ")
    text = error.display("msg")
    setting = next((setting for words, setting in _LIMIT_SETTINGS.items() if words in text), None)
    is_limit = setting is not None and ("exceeded" in text or "terminated" in text)
    if is_limit:
        text = f"{text} ({setting})"
    return Raised(kind.strip(), text if text else message, tuple(error.traceback()), is_limit)

"""Workflows in tests: the real engine, a database in memory, a clock that jumps, and host functions of the test's own."""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from durable_monty.config import Config
from durable_monty.errors import DurableMontyError
from durable_monty.functions import Function
from durable_monty.loop import Loop
from durable_monty.models import Failure
from durable_monty.remote import user_failure
from durable_monty.service import OrchestratorService
from durable_monty.store import open_scratch
from durable_monty.testing.clock import VirtualClock
from durable_monty.testing.stage import MadeCall, Named, Stage
from durable_monty.waiting import Wait, waits_of
from durable_monty.workflows import Workflow

START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
"""What the clock shows at the beginning, unless the test says otherwise."""
TEN_YEARS_SECONDS = 10 * 366 * 86_400.0
_EXECUTOR = "test"


class WorkflowBlocked(DurableMontyError, AssertionError):
    """The workflow waits for something that is not going to happen, or that takes longer than the test allows."""


class WorkflowTest:
    """Runs workflows in a test, in virtual time and without a worker, a file or a thread of its own.

        with WorkflowTest(functions={charge: lambda card, cents: "receipt"}) as t:
            assert t.run(order, inputs={"card": "1234"}) == "receipt"

    It is the real engine with the real sandbox and a real database, SQLite in memory. When nothing else can happen the
    clock jumps to the next timer, timeout or retry, so that a month takes milliseconds.

    Args:
        functions: What stands in for host functions: plain functions or `async def` ones, by the host function itself,
            its dotted path, or its name. Arguments are converted as the real function's annotations say.
        now: What the clock shows at the beginning; None: 2030-01-01T00:00Z.
        strict: Whether a function that nothing stands in for fails when it is called; else the real one is run.
        restarts: Whether everything in memory is dropped again and again, as by `restart`: whenever nothing can happen
            and no host function is being run. Nothing that the test sees may change by it.
        configuration: Policies of functions as in `durable-monty.toml`; None: none, and no file is read.

    Attributes:
        clock: The virtual clock: `now`, `advance`, `advance_to`.
        service: The service, for everything that this class has no word for; call `run_until_blocked` afterwards.
        execution_id: The execution that was started last.
    """

    def __init__(
        self,
        functions: Mapping[Named, Callable[..., Any]] | None = None,
        *,
        now: dt.datetime | None = None,
        strict: bool = False,
        restarts: bool = False,
        configuration: Config | None = None,
    ) -> None:
        self._is_restarting = restarts
        self.clock = VirtualClock(now or START, self._move)
        self.execution_id = ""
        self._configuration = configuration or Config()
        self._stage = Stage(self.clock, strict)
        self._stand_ins: list[tuple[Named, Callable[..., Any]]] = []
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._answers: defaultdict[str, deque[Any]] = defaultdict(deque)
        for function, stand_in in (functions or {}).items():
            self.replace(function, stand_in)
        self._store = open_scratch()
        self._open()

    def __enter__(self) -> WorkflowTest:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None:
            self._require_met()

    def close(self) -> None:
        """Give up the database and the sandbox."""
        self._loop.close(0.0)
        self.service.close()

    # Before and while it runs

    def replace(self, function: Named, stand_in: Callable[..., Any]) -> None:
        """Run a function of the test instead of a host function, from now on.

        Raises:
            TypeError: It is not a function.
        """
        self._stage.replace(function, stand_in)
        self._stand_ins.append((function, stand_in))

    def takes(self, function: Named, seconds: float | Callable[..., float]) -> None:
        """Let each run of a host function take so long, from now on; it is run when that time is over.

        One that takes longer than its `timeout_seconds` times out, and one that is cancelled meanwhile is not run.

        Args:
            seconds: How long, or a function that gets the arguments of the call and says how long.
        """
        self._stage.takes(function, seconds)

    def fail(
        self,
        function: Named,
        nth: int = 1,
        error: BaseException | type[BaseException] | Failure | None = None,
        times: int = 1,
    ) -> None:
        """Let the `nth` run of a host function fail, without running it; the function's retry policy decides what follows.

        A fault that never comes about fails the test at the end of the `with` block.

        Args:
            nth: Counted from 1 over the whole test, each attempt of each call by itself.
            error: What it raises, or a `Failure`, such as `Failure("lost", "Lost", "the machine is gone")`; None:
                `RuntimeError("injected")`.
            times: How many runs fail, from the `nth` on.

        Raises:
            ValueError: `nth` or `times` is below 1, or that run is over.
        """
        if nth < 1 or times < 1:
            raise ValueError(f"failing run {nth} of a function, {times} times: both are counted from 1")
        raised = error() if isinstance(error, type) else error
        failure = raised if isinstance(raised, Failure) else user_failure(raised or RuntimeError("injected"))
        self._stage.add_fault(function, range(nth, nth + times), failure)

    def signal(
        self, name: str, payload: Any = None, *, after_seconds: float | None = None, execution_id: str | None = None
    ) -> None:
        """Send a signal, now or when the clock has gone on by `after_seconds`.

        One that is sent before anything was started goes to the execution that is started next.

        Raises:
            DurableMontyError: As `OrchestratorService.signal`.
        """

        def send() -> None:
            self.service.signal(execution_id or self.execution_id, name, payload)

        if after_seconds is None and (execution_id or self.execution_id):
            send()
        else:
            self.after(after_seconds or 0.0, send)

    def answer(self, signal: str, *payloads: Any) -> None:
        """Send these signals one by one, each when an execution waits for one of this name and nothing else can happen.

        No time passes meanwhile. A payload that is a function is called for the payload.
        """
        self._answers[signal].extend(payloads or (None,))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call a function of the test when the clock has gone on so far, for example `lambda: t.service.cancel(...)`."""
        heapq.heappush(self._plans, (self.clock() + seconds, next(self._numbers), action))

    # Running

    def start(
        self,
        workflow: str | Workflow[..., Any],
        inputs: Mapping[str, Any] | None = None,
        *,
        external_functions: Iterable[Callable[..., Any] | str] | None = None,
        **options: Any,
    ) -> str:
        """Start an execution; nothing of it runs yet.

        Args:
            external_functions: What plain source may call; None: the functions that were named to this test.
            options: As for `OrchestratorService.start_execution`.

        Returns:
            Its id.

        Raises:
            DurableMontyError: As `start_execution`.
        """
        if external_functions is None and isinstance(workflow, str):
            external_functions = [stand_in if _is_bare(name) else name for name, stand_in in self._stand_ins]
        self.execution_id = self.service.start_execution(workflow, external_functions, inputs, **options)
        return self.execution_id

    def run(
        self,
        workflow: str | Workflow[..., Any],
        inputs: Mapping[str, Any] | None = None,
        *,
        within_seconds: float = TEN_YEARS_SECONDS,
        **options: Any,
    ) -> Any:
        """Start an execution and run it to its end, moving the clock wherever nothing else can happen.

        Args:
            within_seconds: Longest virtual time it may take.
            options: As for `start`.

        Returns:
            What the workflow returned.

        Raises:
            ExecutionFailed: It failed or was cancelled; the text holds the traceback.
            WorkflowBlocked: It waits for what is not going to happen, or is not done in time.
        """
        return self.finish(self.start(workflow, inputs, **options), within_seconds=within_seconds)

    def finish(self, execution_id: str | None = None, *, within_seconds: float = TEN_YEARS_SECONDS) -> Any:
        """Run an execution that was started to its end; as `run`."""
        chosen = execution_id or self.execution_id
        ends_at = self.clock() + within_seconds
        self.run_until_blocked()
        while not self._is_over(chosen):
            following = self._next_at()
            if following is None:
                raise WorkflowBlocked(f"execution {chosen!r} is {self._state(chosen)}, and nothing else will happen")
            if following > ends_at:
                raise WorkflowBlocked(f"execution {chosen!r} is {self._state(chosen)} after {within_seconds:g} s")
            self.clock.set(following)
            self.run_until_blocked()
        return self.service.get_result(chosen)

    def run_until_blocked(self) -> list[Wait]:
        """Let everything happen that can without moving the clock.

        Returns:
            What the execution that was started last waits for then.
        """
        self._let_happen()
        if self._is_restarting and not self._stage.is_running:
            self.restart()
            self._let_happen()
        return self.waiting_for() if self.execution_id else []

    def restart(self) -> None:
        """Kill the process, as far as the test can: everything in memory is lost, and the database is opened again.

        Runs that have not ended are lost and are tried again; executions go on from their snapshots.
        """
        old = self.service.runtime
        self._stage.die()
        old.engine.forget_all()
        old.interpreter.close()
        self.service.ends.close()
        # What the others would have to wait for: that the dead process gives no sign of life.
        old.lease.end()
        self._open()

    # Looking

    @property
    def calls(self) -> list[MadeCall]:
        """Every run of a host function so far, in the order in which they began."""
        return list(self._stage.made)

    def calls_of(self, function: Named) -> list[MadeCall]:
        """The runs of one host function."""
        name = function if isinstance(function, str) else getattr(function, "__name__", str(function))
        return [made for made in self._stage.made if made.function == name.replace(":", ".").rpartition(".")[2]]

    @property
    def status(self) -> str:
        """The status of the execution that was started last."""
        return str(self.service.get_execution(self.execution_id)["status"])

    @property
    def result(self) -> Any:
        """What the execution that was started last returned.

        Raises:
            ExecutionNotEnded: It has not ended.
            ExecutionFailed: It failed or was cancelled.
        """
        return self.service.get_result(self.execution_id)

    def waiting_for(self, execution_id: str | None = None) -> list[Wait]:
        """What an execution waits for: functions, timers, signals, children."""
        return waits_of(self._store, execution_id or self.execution_id)

    def published(self, key: str | None = None, execution_id: str | None = None) -> Any:
        """What an execution has published: the value of a key, or all of them."""
        return self.service.published(execution_id or self.execution_id, key)

    def stream(self, stream: str, execution_id: str | None = None) -> list[Any]:
        """The items that an execution has emitted."""
        found = self.service.read_stream(execution_id or self.execution_id, stream, limit=1_000_000)
        return [value for _, value in found]

    def _open(self) -> None:
        self.service = OrchestratorService(self._store, self._configuration, clock=self.clock)
        self.service.runtime.planner.only_executor = _EXECUTOR
        self.service.runtime.has_worker = True
        # It looks at the database when something is due, never for the sake of looking.
        self._loop = Loop(self.service.runtime, self._stage, _EXECUTOR, math.inf)

    def _let_happen(self) -> None:
        while True:
            self._act()
            self._stage.finish_due()
            self.service.runtime.want_look()
            if self._loop.tick() or (self._plans and self._plans[0][0] <= self.clock()):
                continue
            if self._has_more():
                continue
            if not self._answer():
                return

    def _move(self, time: float) -> None:
        """Go to a time, stopping wherever something is due."""
        self.run_until_blocked()
        while (following := self._next_at()) is not None and following <= time:
            self.clock.set(following)
            self.run_until_blocked()
        self.clock.set(time)
        self.run_until_blocked()

    def _next_at(self) -> float | None:
        """The next time at which something happens; None: nothing will."""
        times = [self._loop.look_at, self._stage.next_due_at, self._plans[0][0] if self._plans else None]
        found = [time for time in times if time is not None and time > self.clock()]
        following = min(found, default=math.inf)
        return None if math.isinf(following) else following

    def _has_more(self) -> bool:
        due_at = self._stage.next_due_at
        return self._loop.look_at <= self.clock() or (due_at is not None and due_at <= self.clock())

    def _act(self) -> None:
        while self.execution_id and self._plans and self._plans[0][0] <= self.clock():
            heapq.heappop(self._plans)[2]()

    def _answer(self) -> bool:
        """Send the signal that an execution waits for, if the test has one for it."""
        if not any(self._answers.values()):
            return False
        for execution in self.service.list_executions("waiting", 10_000):
            for wait in self.waiting_for(execution["execution_id"]):
                if wait.kind == "signal" and self._answers.get(wait.name):
                    payload = self._answers[wait.name].popleft()
                    value = payload() if callable(payload) else payload
                    self.service.signal(execution["execution_id"], wait.name, value)
                    return True
        return False

    def _is_over(self, execution_id: str) -> bool:
        return self._store.execution(execution_id).status.is_terminal

    def _state(self, execution_id: str) -> str:
        status = self._store.execution(execution_id).status.value
        waits = ", ".join(map(str, self.waiting_for(execution_id)))
        return f"{status} for {waits}" if waits and status == "waiting" else status

    def _require_met(self) -> None:
        missed = [fault for fault in self._stage.faults if not fault.is_met]
        if missed:
            found = "; ".join(
                f"{fault.name!r} was to fail in run {fault.runs.start}, it was run {self._stage.runs_of(fault.name)} times"
                for fault in missed
            )
            raise AssertionError(f"faults that never came about: {found}")


def _is_bare(function: Named) -> bool:
    return not isinstance(function, Function) and isinstance(function, str) and "." not in function

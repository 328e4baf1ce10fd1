"""A run on one installation: work that never stops, faults one after another, and a judge at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from chaos.checks import Broken, Judge
from chaos.faults import Fault
from chaos.figures import Span
from chaos.installations import Installation
from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config
from durable_monty.errors import StoreError
from support.chaos_workflows import Planned, planned

_STEP_SECONDS = 0.05
_MANY_FAULTS_PROBABILITY = 0.25


class Work:
    """Starts executions, so that there are always as many open, and has each judged that has ended.

    Args:
        is_enough: Asked with the number of executions that were started; once true, no more are.

    Attributes:
        started: How many were.
    """

    def __init__(self, installation: Installation, open_at_once: int, is_enough: Callable[[int], bool]) -> None:
        self._installation = installation
        self._open_at_once = open_at_once
        self._is_enough = is_enough
        self._open: dict[str, Planned] = {}
        self._next: Planned | None = None
        self.started = 0
        self.judge = Judge(installation.figures)
        self.service = OrchestratorService(init_db(installation.url), Config())

    @property
    def is_over(self) -> bool:
        """Whether everything was started that is to be, and has ended."""
        return not self._open and self._is_enough(self.started)

    def step(self) -> None:
        """Start what is missing and look at what has ended; a database that is away is asked again at the next step."""
        try:
            self._start()
            self._look()
        except StoreError:
            self._installation.figures.refused_starts += self._next is not None

    def unfinished(self) -> str:
        """What is still open, for people."""
        lines = []
        for execution_id in sorted(self._open):
            row = self.service.runtime.store.execution(execution_id)
            calls = [
                f"{call.call_id} {call.kind} {call.status} attempt {call.attempt} due {call.due_at}"
                for call in self.service.runtime.store.calls(execution_id)
                if call.batch is None
            ]
            lines.append(f"{execution_id} {row.status} wake {row.wake_at} worker {row.worker} note {row.note}: {calls}")
        return "\n".join([f"at {time.time()}:", *lines])

    def _start(self) -> None:
        while len(self._open) < self._open_at_once and not self._is_enough(self.started):
            self._next = self._next or planned(self.started)
            # Again with the same id, whether it happened or not.
            self.service.start_execution(
                self._next.workflow, inputs=self._next.inputs, execution_id=self._next.execution_id
            )
            self._open[self._next.execution_id] = self._next
            self.started += 1
            self._next = None

    def _look(self) -> None:
        store = self.service.runtime.store
        ended = set(self._open) - store.listing.living(list(self._open))
        for execution_id in sorted(ended):
            row = store.execution(execution_id)
            if not row.status.is_terminal:
                raise Broken(f"{execution_id} is {row.status}: {row.note}")
            # Only what was looked at is done with: the database may go away in the middle of it.
            self.judge.look(self.service, self._open[execution_id])
            del self._open[execution_id]
            assert row.ended_at is not None
            # A database on a small disk must not grow with the length of the run.
            store.retention.delete([(execution_id, row.ended_at)])


class Faults:
    """Brings faults about one after another, sometimes two at once, every kind equally often.

    Args:
        pause_seconds: From when to when there is peace between two.
        at_most: After so many there are no more.
    """

    def __init__(
        self, installation: Installation, faults: Sequence[Fault], pause_seconds: tuple[float, float], at_most: int
    ) -> None:
        self._installation = installation
        self._faults = faults
        self._pause_seconds = pause_seconds
        self._at_most = at_most
        self._bag: list[Fault] = []
        self._active: list[tuple[float, Fault, Span]] = []
        self._next_at = time.monotonic() + 2.0

    def step(self) -> None:
        """Heal what has lasted long enough; perhaps bring about the next."""
        now = time.monotonic()
        for item in [item for item in self._active if item[0] <= now]:
            self._heal(item)
        if now >= self._next_at and self._installation.figures.faults.total() < self._at_most:
            self._inject()

    def heal(self) -> None:
        """Take away everything."""
        for item in tuple(self._active):
            self._heal(item)

    def _inject(self) -> None:
        random = self._installation.random
        if not self._bag:
            self._bag = random.sample(self._faults, len(self._faults))
        fault = next((item for item in self._bag if not self._is_at_odds(item)), None)
        if fault is None:
            return
        self._bag.remove(fault)
        span = Span(fault.kind, time.time(), fault.repeats)
        # Before it is brought about: the judge must know of it even if that fails.
        self._installation.figures.spans.append(span)
        self._installation.figures.faults[fault.kind] += 1
        fault.inject()
        lasts = random.uniform(*fault.lasts_seconds)
        self._active.append((time.monotonic() + lasts, fault, span))
        pause = random.uniform(*self._pause_seconds)
        self._next_at = time.monotonic() + pause + (0.0 if random.random() < _MANY_FAULTS_PROBABILITY else lasts)

    def _is_at_odds(self, fault: Fault) -> bool:
        """Two that stop the same thing, or take the same command away, would heal each other."""
        groups = (
            "PostgreSQL",
            "SQLite",
            "clock",
            "network",
            "worker stopped",
            "Redis",
            "sessions",
            "connections",
            "comm",
        )
        group = next((name for name in groups if fault.kind.startswith(name)), None)
        needs_database = {"sessions", "PostgreSQL"}
        for _, active, _ in self._active:
            other = next((name for name in groups if active.kind.startswith(name)), None)
            if group is not None and (group == other or {group, other} <= needs_database):
                return True
        return False

    def _heal(self, item: tuple[float, Fault, Span]) -> None:
        _, fault, span = item
        self._active.remove(item)
        fault.heal()
        span.ended_at = time.time() + fault.after_seconds


def run(
    installation: Installation,
    faults: Sequence[Fault],
    *,
    seconds: float | None = None,
    count: int | None = None,
    at_least: int = 0,
    at_most: int = 10**9,
    open_at_once: int = 30,
    pause_seconds: tuple[float, float] = (0.5, 3.0),
    grace_seconds: float = 240.0,
    report_seconds: float | None = None,
) -> None:
    """Work and faults together; then everything is healed, the work is finished, and the ledger is compared.

    Args:
        seconds: How long there are new executions and faults; None: until `count` executions have ended.
        count: How many executions there are; more if there were fewer than `at_least` faults until then.
        at_most: The most faults.
        grace_seconds: How long the last executions may take after `seconds`; without those, how long all may take.
        report_seconds: How often the figures are printed meanwhile.

    Raises:
        Broken: A promise was not kept.
    """
    figures = installation.figures
    began_at = time.monotonic()

    def is_enough(started: int) -> bool:
        if seconds is None:
            return count is not None and started >= count and figures.faults.total() >= at_least
        return time.monotonic() - began_at >= seconds

    work = Work(installation, open_at_once, is_enough)
    trouble = Faults(installation, faults, pause_seconds, at_most)
    failure: list[BaseException] = []
    is_over = threading.Event()

    def do_work() -> None:
        try:
            while not work.is_over and not is_over.is_set():
                work.step()
                is_over.wait(_STEP_SECONDS)
        except BaseException as error:
            failure.append(error)
        finally:
            is_over.set()

    thread = threading.Thread(target=do_work, name=f"work of {figures.name}")
    thread.start()
    healed_at = reported_at = began_at
    try:
        while not is_over.wait(_STEP_SECONDS):
            installation.supervise()
            now = time.monotonic()
            if seconds is None:
                trouble.step()
            elif now - began_at < seconds:
                healed_at = now
                trouble.step()
            else:
                trouble.heal()
            if now - healed_at > grace_seconds:
                raise Broken(f"{figures.name}: not finished in {now - began_at:.0f} s\n{work.unfinished()}")
            if report_seconds is not None and now - reported_at > report_seconds:
                reported_at = now
                figures.seconds = now - began_at
                print(f"[{now - began_at:.0f} s] {figures}", flush=True)
        trouble.heal()
    finally:
        is_over.set()
        thread.join()
        installation.stop()
        figures.seconds = time.monotonic() - began_at
    if failure:
        raise failure[0]
    work.judge.compare(installation.ledger.read_text().splitlines())
    work.service.close()

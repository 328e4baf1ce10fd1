"""What is around the simulated processes: time, chance, a back end that runs jobs, and the record of every commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from durable_monty import codec
from durable_monty.config import Config
from durable_monty.envelope import decode_envelope, encode_failure, encode_value
from durable_monty.hookspecs import hookimpl
from durable_monty.interpreter import Interpreter
from durable_monty.models import Accepted, Call, Capabilities, Failure, Job, Outcome, Refused
from simulation.nodes import Node

FAULTS = (
    "commit", "crash", "freeze", "lapse", "clock", "skew", "submit", "drop", "double", "late", "lost", "failure",
    "cancel", "pause", "by hand", "deadline", "interleave",
)  # fmt: skip
"""Kinds of trouble; each has a chance of its own, so that one can be left out without changing the others."""


@dataclass
class Work:
    """A job at the back end.

    Attributes:
        node: Where it runs, if it dies with the process that submitted it.
        running: How many copies run.
        outcomes: What came of copies.
        is_completed: Whether the core has said that an outcome is durable.
    """

    job_id: str
    call: Call
    node: Node | None
    running: int = 0
    copies: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    is_completed: bool = False
    is_cancelled: bool = False


class World:
    """One seed's world.

    Args:
        without: Kinds of trouble that are left out.
    """

    def __init__(self, seed: int, config: Config, interpreter: Interpreter, without: Sequence[str] = ()) -> None:
        self.seed = seed
        self.config = config
        self.interpreter = interpreter
        self.now = 1_000_000.0
        self.without = set(without)
        self._chances = {kind: Random(f"{seed}/{kind}") for kind in (*FAULTS, "order", "work", "shape")}
        self.order, self.work_chance, self.shape = (self._chances[kind] for kind in ("order", "work", "shape"))
        self.jobs: dict[str, Work] = {}
        self.values: dict[str, set[str]] = defaultdict(set)
        self.commits = 0
        self.model: Any = None
        self.capabilities = Capabilities(
            pushes=True,
            caller_ids=self.shape.random() < 0.5,
            can_find=self.shape.random() < 0.5,
            cancel=self.shape.random() < 0.7,
            survives_restart=self.shape.random() < 0.8,
            max_in_flight=self.shape.choice([None, None, 2]),
            max_batch=1000,
        )

    def read_clock(self) -> float:
        """The time; nobody reads the same twice."""
        self.now += 1e-6
        return self.now

    def has(self, kind: str, chance: float) -> bool:
        """Whether this kind of trouble strikes now."""
        return kind not in self.without and self._chances[kind].random() < chance

    def pick(self, kind: str, items: Sequence[Any]) -> Any:
        return self._chances[kind].choice(items)

    def skew_of(self, node: Node) -> float:
        return self.pick("skew", [-4.0, 0.0, 4.0]) if self.has("skew", 0.2) else 0.0

    def commit_fault(self) -> str:
        if not self.has("commit", 0.03):
            return ""
        return str(
            self.pick("commit", ["crash before", "crash after", "unknown, not done", "unknown, done", "unreachable"])
        )

    def note_commit(self, who: str) -> int:
        self.commits += 1
        self.model.look(who)
        return self.commits

    # The back end

    def accept(self, node: Node, call: Call) -> None:
        work = self.jobs.get(call.job_id)
        if work is None:
            holder = None if self.capabilities.survives_restart else node
            work = self.jobs[call.job_id] = Work(call.job_id, call, holder)
        elif self.capabilities.caller_ids:
            return
        work.running += 1

    def end_one(self, work: Work) -> None:
        """One copy ends."""
        work.running -= 1
        work.copies += 1
        name = decode_envelope(work.call.envelope, None).args[0]
        if work.is_cancelled and self.work_chance.random() < 0.5:
            failure = Failure("cancelled", "Cancelled", "the job was cancelled")
        elif self.has("lost", 0.06):
            failure = Failure("lost", "Lost", "its machine is gone")
        elif self.has("failure", 0.08):
            failure = Failure("user", "ValueError", f"{name} failed", bases=("Exception",))
        else:
            value = codec.dumps(f"{name}#{work.call.attempt}.{work.copies}")
            self.values[work.job_id].add(value)
            work.outcomes.append(Outcome(work.job_id, reply=encode_value(work.job_id, value, None)))
            return
        work.outcomes.append(Outcome(work.job_id, reply=encode_failure(work.job_id, failure, None)))

    def end_with(self, node: Node) -> None:
        """What runs in a process dies with it."""
        if not self.capabilities.survives_restart:
            for work in self.jobs.values():
                if work.node is node:
                    work.running, work.outcomes = 0, []

    def poll(self, node: Node) -> None:
        """Tell a process what is known about its open jobs, as polling does."""
        found = []
        for item in node.loop.jobs.all():
            work = self.jobs.get(item.job.job_id)
            if work is None or (not work.running and not work.outcomes):
                gone = Failure("lost", "Lost", "the back end knows no such job")
                found.append(Outcome(item.job.job_id, failure=gone))
            elif work.outcomes:
                found.append(self.order.choice(work.outcomes))
        self.order.shuffle(found)
        if found:
            node.loop._collector.deliver(self.config.executor, found)


class SimulatedExecutor:
    """The hooks, as one process has them."""

    def __init__(self, world: World, node: Node) -> None:
        self._world, self._node = world, node
        self.capabilities = world.capabilities

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        self._node.stop_at("before submit")
        world = self._world
        for call in calls:
            world.model.check_submit(self._node, call)
        if world.has("submit", 0.05):
            raise ConnectionError("simulated: nothing arrived")
        answers: list[Accepted | Refused] = []
        for call in calls:
            if world.has("submit", 0.04):
                answers.append(Refused(call.job_id, "simulated: busy", 1.0))
                continue
            if not world.has("drop", 0.03):
                world.accept(self._node, call)
                if world.has("double", 0.04):
                    world.accept(self._node, call)
            if not world.has("submit", 0.02):
                answers.append(Accepted(call.job_id, f"token-{call.job_id}"))
        if world.has("submit", 0.03):
            raise ConnectionError("simulated: it all arrived, and the answer was lost")
        self._node.stop_at("after submit")
        return answers

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome]:
        return []

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None:
        self._node.stop_at("before complete")
        for job in jobs:
            self._world.model.check_complete(job)
            if job.job_id in self._world.jobs:
                self._world.jobs[job.job_id].is_completed = True

    @hookimpl
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        for job in jobs:
            work = self._world.jobs.get(job.job_id)
            if work is not None:
                work.is_cancelled = True
        return {job.job_id: True for job in jobs}

    @hookimpl
    def find(self, jobs: Sequence[Job]) -> dict[str, str]:
        if not self.capabilities.can_find:
            return {}
        return {job.job_id: "known" if job.job_id in self._world.jobs else "absent" for job in jobs}

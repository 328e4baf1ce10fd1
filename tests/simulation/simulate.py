"""One seed: simulated processes work on a few executions while everything goes wrong, then nothing does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from durable_monty import OrchestratorService, codec, init_db
from durable_monty.config import Config
from durable_monty.errors import CallEnded, CallNotFound, ExecutionEnded
from durable_monty.interpreter import Interpreter, Limits
from durable_monty.store import Store
from durable_monty.store.connections import Connections
from simulation.model import CLIENT, ENDED, Model
from simulation.nodes import IDLE, Node, Violation, virtual_runtime
from simulation.scenarios import CHILDREN, FUNCTIONS, HEAD, SOURCES
from simulation.world import SimulatedExecutor, Work, World

STEPS = 250
CALM_ROUNDS = 250
MOST_NODES = 3
LEASE_SECONDS = 15.0
_TABLES = ("calls", "executions", "snapshots", "attempts", "workers", "signals", "tags", "workflows")


@dataclass(frozen=True)
class Result:
    """How a seed ended.

    Attributes:
        violation: What happened that must never happen, or None.
        trace: What was done, in order.
    """

    violation: str | None
    steps: int
    commits: int
    turns: int
    trace: Sequence[str]


class _ClientConnections(Connections):
    """The way of those who use the service; what they write is looked at as well."""

    look: Callable[[], object] = staticmethod(lambda: None)

    def write(self, *, is_quiet: bool = False) -> Any:
        return _Looking(super().write(is_quiet=is_quiet), self)


class _Looking:
    def __init__(self, inner: Any, connections: _ClientConnections) -> None:
        self._inner, self._connections = inner, connections

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> Any:
        answer = self._inner.__exit__(*error)
        if error[0] is None:
            self._connections.look()
        return answer


class Shop:
    """What all seeds share: a database in memory, emptied for each, and sandbox processes."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = lambda: 0.0
        self.store = init_db("sqlite:///:memory:")
        self.engine = self.store._connections.engine
        self.raw: Any = self.engine.raw_connection().driver_connection
        import datetime as dt

        self.interpreter = Interpreter(Limits(processes=12), now=lambda: dt.datetime.fromtimestamp(self.now(), dt.UTC))
        self.config = Config.model_validate(
            {"worker": {"lease_seconds": LEASE_SECONDS}, "interpreter": {"processes": 3}}
        )

    def empty(self) -> None:
        if self.raw.in_transaction:
            self.raw.rollback()
        for table in _TABLES:
            self.raw.execute(f"DELETE FROM {table}")

    def close(self) -> None:
        self.interpreter.close()


class Simulation:
    """Everything of one seed.

    Args:
        steps: How long things go wrong.
        without: Kinds of trouble that are left out (`simulation.world.FAULTS`).
    """

    def __init__(self, shop: Shop, seed: int, steps: int = STEPS, without: Sequence[str] = ()) -> None:
        shop.empty()
        self.steps = steps
        self.world = World(seed, shop.config, shop.interpreter, without)
        shop.now = lambda: self.world.now
        self.model = self.world.model = Model(self.world, shop.raw, shop.store)
        self._shop = shop
        self._nodes: list[Node] = []
        self._numbers = 0
        self._signals = 0
        self.trace: list[str] = []
        connections = _ClientConnections(shop.engine)
        connections.look = lambda: self.world.note_commit(CLIENT)
        self._client = OrchestratorService(Store(shop.engine, connections), shop.config)
        self._client.runtime = virtual_runtime(
            self._client.runtime.store, shop.config, self.world.read_clock, shop.interpreter, Random(seed)
        )
        self._client._starter._runtime = self._client.runtime
        self._step = 0

    def run(self) -> Result:
        """Run the seed to its end."""
        violation = None
        try:
            self._begin()
            while self._step < self.steps:
                self._do_something()
                self._step += 1
            self._calm()
            self.model.check_end()
        except Violation as found:
            violation = str(found)
        except Exception as error:
            violation = f"{type(error).__name__}: {error}"
            import traceback

            self.trace.append(traceback.format_exc())
        finally:
            if violation is not None:
                self.trace += self._state()
            for node in self._nodes:
                try:
                    node.crash()
                except Exception as error:
                    violation = violation or f"{type(error).__name__}: {error}"
            self._client.runtime.store._connections._drop_kept()
        return Result(violation, self._step, self.world.commits, self.model.turns, self.trace)

    def _state(self) -> list[str]:
        rows = [
            f"{row}"
            for table in ("executions", "calls", "attempts", "workers")
            for row in self._shop.raw.execute(_STATE[table])
        ]
        nodes = [f"{node.name} {'dead' if node.is_dead else node.at}" for node in self._nodes]
        jobs = [
            f"{work.job_id} running {work.running} outcomes {len(work.outcomes)}" for work in self.world.jobs.values()
        ]
        return ["what the database has:", *rows, *nodes, *jobs]

    def _begin(self) -> None:
        shape = self.world.shape
        for number in range(shape.choice([1, 1, 2, 3])):
            name = shape.choice(list(SOURCES))
            deadline = shape.choice([20.0, 60.0]) if self.world.has("deadline", 0.15) else None
            source = HEAD + SOURCES[name]
            self._client.start_execution(
                source,
                FUNCTIONS,
                execution_id=f"{name}{number}",
                check=False,
                workflows=CHILDREN,
                deadline_seconds=deadline,
            )
            self._note(f"start {name}{number}")
        for _ in range(shape.choice([1, 2, 3])):
            self._add_node()

    def _note(self, text: str) -> None:
        self.trace.append(f"{self._step:4} {self.world.now - 1_000_000.0:8.2f} {text}")

    def _add_node(self) -> None:
        self._numbers += 1
        node = Node(self._numbers, self.world, self._shop.engine, lambda node: SimulatedExecutor(self.world, node))
        self._nodes.append(node)
        self._note(f"{node.name} begins")

    def _alive(self) -> list[Node]:
        return [node for node in self._nodes if not node.is_dead]

    def _do_something(self) -> None:
        world = self.world
        kind = world.order.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        getattr(self, f"_{kind}")()
        for node in self._nodes:
            if node.is_dead:
                world.end_with(node)
        if self.world.order.random() < 0.02:
            self.model.check_snapshots()

    def _run_node(self) -> None:
        nodes = [node for node in self._alive() if node.frozen_until <= self._step]
        if not nodes:
            return
        node = self.world.order.choice(nodes)
        if self.world.has("interleave", 0.6):
            node.step()
        else:
            node.tick()
        self._note(f"{node.name} {'dies' if node.is_dead else node.at}")

    def _time(self) -> None:
        self.world.now += self.world.order.choice([0.01, 0.3, 1.0, 2.5])

    def _trouble(self) -> None:
        world = self.world
        nodes = self._alive()
        if world.has("lapse", 0.15):
            world.now += LEASE_SECONDS * 1.5
            self._note("time jumps over the leases")
        if world.has("clock", 0.1):
            world.now -= world.pick("clock", [0.5, 5.0, 30.0])
            self._note("the clock is set back")
        if nodes and world.has("crash", 0.2):
            node = world.pick("crash", nodes)
            self._note(f"{node.name} is killed {node.at}")
            node.crash()
        if nodes and world.has("freeze", 0.25):
            node = world.pick("freeze", nodes)
            node.frozen_until = self._step + world.pick("freeze", [10, 30, 60])
            self._note(f"{node.name} is frozen {node.at}")
            if world.has("lapse", 0.5):
                world.now += LEASE_SECONDS * 1.5

    def _join(self) -> None:
        if len(self._alive()) < MOST_NODES:
            self._add_node()

    def _job(self) -> None:
        running = [work for work in self.world.jobs.values() if work.running]
        if running:
            work = self.world.order.choice(running)
            self.world.end_one(work)
            self._note(f"{work.job_id} ends")

    def _deliver(self) -> None:
        """To any process, also what it did not ask for, again, or long over."""
        nodes = [node for node in self._alive() if node.is_up]
        known = [work for work in self.world.jobs.values() if work.outcomes and self._may_come(work)]
        if nodes and known:
            node, work = self.world.order.choice(nodes), self.world.order.choice(known)
            if work.node in (None, node):
                node.loop._collector.deliver(self.world.config.executor, [self.world.order.choice(work.outcomes)])
                self._note(f"{node.name} hears of {work.job_id}")

    def _may_come(self, work: Work) -> bool:
        return not work.is_completed or self.world.has("late", 0.3)

    def _poll(self) -> None:
        nodes = [node for node in self._alive() if node.is_up]
        if nodes:
            self.world.poll(self.world.order.choice(nodes))

    def _ring(self) -> None:
        for node in self._alive():
            if node.is_up and self.world.order.random() < 0.5:
                node.runtime.want_look()

    def _client_acts(self) -> None:
        world, order = self.world, self.world.order
        ids = [row.id for row in self.model.executions.values() if row.status not in ENDED]
        if not ids:
            return
        id_ = order.choice(ids)
        try:
            if id_.startswith("signals") and order.random() < 0.7:
                self._signal(id_)
            if world.has("cancel", 0.06):
                self._note(f"cancel {id_}")
                self._client.cancel(id_, deadline_seconds=20.0)
            if world.has("pause", 0.1):
                self._note(f"pause {id_}")
                self._client.pause(id_)
            elif order.random() < 0.5:
                self._client.resume(id_)
            if world.has("by hand", 0.15):
                self._complete_by_hand(id_)
        except ExecutionEnded:
            self._note(f"{id_} has ended")

    def _signal(self, id_: str) -> None:
        self._signals += 1
        self._client.signal(id_, "s", f"signal {self._signals}")
        self._note(f"signal {self._signals} to {id_}")

    def _complete_by_hand(self, id_: str) -> None:
        calls = [row for row in self.model.calls.values() if row.execution_id == id_ and row.kind == "function"]
        if calls:
            row = self.world.pick("by hand", calls)
            value = f"by hand {self.world.commits}"
            self.model.by_hand.add(codec.dumps(value))
            try:
                self._client.complete_call(id_, row.call_id, value)
                self._note(f"{id_} call {row.call_id} by hand")
            except (CallEnded, CallNotFound):
                pass

    def _calm(self) -> None:
        """Nothing goes wrong any more: everything comes to its end."""
        world = self.world
        world.without |= {*world._chances} - {"order", "work", "shape"}
        self.trace.append("calm")
        for node in self._nodes:
            if not node.is_dead and node.at != IDLE:
                node.tick()
        self.model.check_snapshots()
        if not self._alive():
            self._add_node()
        for round_ in range(CALM_ROUNDS):
            for node in self._alive():
                for _ in range(30):
                    node.tick()
                    if node.is_dead or not node.is_busy:
                        break
            self._serve()
            if all(row.status in ENDED for row in self.model.executions.values()):
                return
            world.now += 1.0 if round_ < 60 else 5.0

    def _serve(self) -> None:
        """Back end and people do all that they are waited for."""
        for work in list(self.world.jobs.values()):
            while work.running:
                self.world.end_one(work)
        for node in self._alive():
            if node.is_up:
                self.world.poll(node)
        for row in list(self.model.executions.values()):
            if row.status == "paused":
                self._client.resume(row.id)
        for call in list(self.model.calls.values()):
            if call.kind == "signal" and call.status == "submitted":
                self._signal(call.execution_id)


_STATE = {
    "executions": "SELECT id, status, version, worker, wake_at - 1000000, cancel_deadline_at, error FROM executions",
    "calls": "SELECT execution_id, call_id, kind, function, status, attempt, worker, batch, due_at - 1000000, scope, outcome FROM calls",
    "attempts": "SELECT execution_id, call_id, attempt FROM attempts",
    "workers": "SELECT id, lease_until - 1000000 FROM workers",
}
_WEIGHTS = {
    "run_node": 60,
    "time": 8,
    "trouble": 10,
    "join": 3,
    "job": 14,
    "deliver": 12,
    "poll": 6,
    "ring": 6,
    "client_acts": 5,
}

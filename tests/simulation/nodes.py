"""Simulated processes: each a thread of which one runs at a time, stopped before and after every transaction."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy import Engine as DatabaseEngine

from durable_monty.config import Config
from durable_monty.errors import StoreUnreachable
from durable_monty.interpreter import Interpreter
from durable_monty.loop import Loop
from durable_monty.records import WorkerIdentity
from durable_monty.runtime import Runtime
from durable_monty.store.connections import Connections
from durable_monty.store.store import Store

if TYPE_CHECKING:
    from simulation.world import World

IDLE = "between two passes"


class Crashed(BaseException):
    """The process is gone."""


class Violation(BaseException):
    """Something happened that must never happen. Not an `Exception`: what a plug-in raises is no news to the engine."""


class NodeConnections(Connections):
    """A process's way to the shared database; every transaction may be its last."""

    def __init__(self, engine: DatabaseEngine, node: Node) -> None:
        super().__init__(engine)
        self._node = node

    @contextmanager
    def write(self, *, is_quiet: bool = False) -> Iterator[Connection]:
        self._node.stop_at("before a transaction")
        fault = self._node.commit_fault()
        if fault == "unreachable":
            raise StoreUnreachable("simulated: the database does not answer")
        with super().write(is_quiet=is_quiet) as connection:
            yield connection
            if fault == "crash before":
                raise Crashed
            if fault == "unknown, not done":
                raise StoreUnreachable("simulated: it is not known whether the commit happened")
        self._node.committed()
        if fault == "crash after":
            raise Crashed
        if fault == "unknown, done":
            raise StoreUnreachable("simulated: it is not known whether the commit happened")
        self._node.stop_at("after a transaction")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection


def virtual_runtime(
    store: Store, config: Config, clock: Callable[[], float], interpreter: Interpreter, random: Random
) -> Runtime:
    """A runtime that lives in virtual time and shares its sandbox processes with others."""
    runtime = Runtime(store, config, clock)
    runtime.interpreter._pool, runtime.interpreter._pool_pid = interpreter._started_pool(), os.getpid()
    runtime.interpreter._now = interpreter._now
    runtime.planner.random = random
    return runtime


class Node:
    """One worker process.

    Attributes:
        frozen_until: The step of the simulation at which it may go on; it is stopped until then, wherever it is.
        committed_at: The number of its last commit.
    """

    def __init__(self, number: int, world: World, engine: DatabaseEngine, executor: Any) -> None:
        self.number = number
        self.world = world
        self.name = f"w{number}"
        self.frozen_until = 0
        self.committed_at = 0
        self.at = IDLE
        self.is_dead = False
        self.error: BaseException | None = None
        self.is_busy = True
        self._engine, self._executor = engine, executor
        self._is_crashing = False
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._is_up = False
        self._thread.start()

    # From the scheduler

    def step(self) -> None:
        """Let it run to the next place where it can be stopped."""
        self._go.release()
        self._back.acquire()
        if self.error is not None:
            raise self.error

    def tick(self) -> None:
        """Let it finish the pass that it is in, or make one."""
        self.step()
        while not self.is_dead and self.at != IDLE:
            self.step()

    def crash(self) -> None:
        """End it where it is."""
        if not self.is_dead:
            self._is_crashing = True
            self.step()

    # From within

    def stop_at(self, place: str) -> None:
        if threading.current_thread() is not self._thread:
            return
        self.at = place
        self._back.release()
        self._go.acquire()
        if self._is_crashing:
            raise Crashed

    def commit_fault(self) -> str:
        return self.world.commit_fault() if self._is_up else ""

    def committed(self) -> None:
        self.committed_at = self.world.note_commit(self.name)

    def _live(self) -> None:
        self._go.acquire()
        try:
            if self._is_crashing:
                raise Crashed
            store = Store(self._engine, NodeConnections(self._engine, self))
            skew = self.world.skew_of(self)
            clock = lambda: self.world.read_clock() + skew  # noqa: E731
            self.runtime = virtual_runtime(
                store, self.world.config, clock, self.world.interpreter, Random(f"{self.world.seed}/{self.name}")
            )
            self.runtime.lease._identity = WorkerIdentity(self.name, "simulated", os.getpid(), 0)
            self.runtime.has_worker = True
            self.loop = Loop(self.runtime, self._executor(self), self.world.config.executor, 1.0, self.stop_at)
            self._is_up = True
            while True:
                self.is_busy = self.loop.tick()
                self.stop_at(IDLE)
        except Crashed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.is_dead = True
            if self._is_up:
                self.runtime.engine.forget_all()
            self._back.release()

    @property
    def is_up(self) -> bool:
        return self._is_up and not self.is_dead

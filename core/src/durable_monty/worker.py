"""The worker: the process that runs the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from durable_monty.loop import Loop
from durable_monty.observers import load, wrap

if TYPE_CHECKING:
    from durable_monty.service import OrchestratorService

_STOP_GRACE_SECONDS = 0.2


class Worker:
    """Advances executions and has their calls run by executors.

    Any number of workers, in any number of processes, may share a database; each may be killed at any moment.

    Args:
        service: What to work for.
        executor: What runs calls whose function and route name no other: an object (a plug-in's executor, or anything
            with `submit_call` and `get_stats`), the name of a configured one, or None for the configured default.
        poll_interval: Longest time between two looks at the database, in seconds. News made in this process, and on
            PostgreSQL in any process, are acted on at once.
        on_step: Called with a name after each transaction and each hook of the loop; for tests that end the process
            between two of them.
        observers: Objects with hooks of `durable_monty.observerspecs`, told besides those that the configuration names.

    Raises:
        PluginError: At `run`: the plug-in of an executor or observer is missing or broken.
        ConfigError: At `run`: its settings cannot be used.
    """

    def __init__(
        self,
        service: OrchestratorService,
        executor: Any = None,
        poll_interval: float = 1.0,
        *,
        on_step: Callable[[str], None] = lambda name: None,
        observers: Iterable[Any] = (),
    ) -> None:
        if not poll_interval > 0:
            raise ValueError(f"poll_interval is {poll_interval!r}; it must be more than 0 seconds")
        self._runtime = service.runtime
        self._poll_interval = poll_interval
        self._executor = None if isinstance(executor, str) else executor
        if isinstance(executor, str):
            self._runtime.use_default_executor(executor)
        self._on_step = on_step
        self._observers = list(observers)
        self._stopping = threading.Event()
        self._grace_seconds = _STOP_GRACE_SECONDS
        self._loop: Loop | None = None

    def run(self, once: bool = False, until_complete: bool = False) -> None:
        """Work until `stop` is called.

        Args:
            once: Make one pass instead: advance what is due, submit its calls, and wait at most `poll_interval` for
                the first outcome of calls that run in this process.
            until_complete: Return as soon as no execution is scheduled, running or waiting.

        Raises:
            ValueError: Both were asked for.
        """
        if once and until_complete:
            raise ValueError("run(once=True, until_complete=True): choose one of the two")
        if once:
            self._run_once()
        elif until_complete:
            self.run_until(lambda: not self._opened().jobs and self._runtime.store.is_idle())
        else:
            self.run_until(lambda: False)

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """Work until `is_over`, which is asked whenever an execution may have ended, or until `stop` is called."""
        try:
            loop = self._opened()
            seen = -1
            while not self._stopping.is_set():
                is_busy = loop.tick()
                if seen != loop.checkpoints:
                    seen = loop.checkpoints
                    if is_over():
                        break
                if not is_busy:
                    loop.wait()
        finally:
            self._close()

    def stop(self, grace_seconds: float = _STOP_GRACE_SECONDS) -> None:
        """Make `run` return; may be called from any thread or a signal handler.

        The turn in hand is finished, claims are given up, and remote jobs go on.

        Args:
            grace_seconds: How long calls that run in this process may take to finish; those that do not are given
                back and run again elsewhere.
        """
        self._grace_seconds = grace_seconds
        self._stopping.set()
        self._runtime.bell.ring()

    def _run_once(self) -> None:
        loop = self._opened()
        self._runtime.want_look()
        while loop.tick():
            pass
        if loop.has_local_jobs:
            loop.wait(self._poll_interval)
            loop.tick()

    def _opened(self) -> Loop:
        if self._loop is None:
            config = self._runtime.config
            observing = [load(name, *config.observer_plugin_of(name)) for name in config.observe]
            observing += [wrap(item) for item in self._observers]
            self._loop = Loop(
                self._runtime, self._executor, config.executor, self._poll_interval, self._on_step, observing
            )
            self._runtime.has_worker = True
        return self._loop

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        try:
            if loop is not None:
                loop.close(self._grace_seconds)
        finally:
            self._runtime.has_worker = False
            self._stopping.clear()
            self._grace_seconds = _STOP_GRACE_SECONDS

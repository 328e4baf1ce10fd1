"""Observers of one worker: finding them, and telling them what has become durable without holding anything up."""

from __future__ import annotations

import difflib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import ValidationError

from durable_monty import faults
from durable_monty.errors import ConfigError, PluginError
from durable_monty.explain import explain
from durable_monty.hookspecs import PROJECT
from durable_monty.observerspecs import (
    ENTRY_POINT_GROUP,
    MAX_BATCH,
    MAX_QUEUED,
    STOP_SECONDS,
    CallRetried,
    CallSettled,
    CallSubmitted,
    ExecutionEnded,
    ExecutionStarted,
    ExecutionSuspended,
    ObserverSpec,
    SignalReceived,
    StartingCall,
    WorkerInfo,
)

log = logging.getLogger(__name__)

Event = (
    ExecutionStarted | ExecutionSuspended | ExecutionEnded | CallSubmitted | CallSettled | CallRetried | SignalReceived
)

# The hook that is told of a kind of fact, and the name of its argument.
_HOOKS: Mapping[type, tuple[str, str]] = {
    ExecutionStarted: ("executions_started", "executions"),
    ExecutionSuspended: ("executions_suspended", "executions"),
    ExecutionEnded: ("executions_ended", "executions"),
    CallSubmitted: ("calls_submitted", "calls"),
    CallSettled: ("calls_settled", "calls"),
    CallRetried: ("calls_retried", "calls"),
    SignalReceived: ("signals_received", "signals"),
}
_MAX_CONTEXT_CHARACTERS = 512


class LoadedObserver:
    """One observer behind a relay of its own, so that what it raises is nobody else's.

    Attributes:
        name: Its name in the configuration, or its class's if it was handed over as an object.
    """

    def __init__(self, name: str, implementation: Any, manager: pluggy.PluginManager) -> None:
        self.name = name
        self.implementation = implementation
        self._hook: Any = manager.hook
        self._has_failed: set[str] = set()

    def __repr__(self) -> str:
        return f"<observer {self.name}>"

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Call a hook; what it raises is logged, the first time."""
        try:
            answers: list[Any] = getattr(self._hook, hook)(**arguments)
        except (Exception, SystemExit) as error:
            if hook not in self._has_failed:
                self._has_failed.add(hook)
                log.warning(
                    "an observer's hook failed; it goes on being told, and this is not logged again",
                    extra={"observer": self.name, "hook": hook},
                    exc_info=error,
                )
            return []
        return answers


def available() -> dict[str, EntryPoint]:
    """Every installed observer by name; imports none of them."""
    return {item.name: item for item in entry_points(group=ENTRY_POINT_GROUP)}


def load(name: str, plugin: str, options: Mapping[str, Any]) -> LoadedObserver:
    """The observer that a table of the configuration describes; imports its distribution and no other.

    Args:
        options: The table's keys besides `plugin`.

    Raises:
        PluginError: The plug-in is missing, twice there, does not load, or does not keep to the hooks.
        ConfigError: An option is unknown, missing or of the wrong type.
    """
    cls = observer_class(plugin, name)
    settings_class = getattr(cls, "Settings", None)
    if settings_class is None:
        raise PluginError(f"observer {name!r}: {cls!r} has no class attribute `Settings`, a pydantic model")
    try:
        settings = settings_class(**options)
    except ValidationError as error:
        raise ConfigError(explain(error, settings_class, ("observers", name), "the configuration")) from error
    return wrap(cls(settings), name)


def observer_class(plugin: str, name: str | None = None) -> Any:
    """The class that a plug-in's entry point names.

    Raises:
        PluginError: As `load`.
    """
    who = f"observer {name or plugin!r}"
    found = [item for item in entry_points(group=ENTRY_POINT_GROUP) if item.name == plugin]
    if not found:
        raise PluginError(f"{who}: {missing_message(plugin, list(available()))}")
    if len(found) > 1:
        raise PluginError(f"{who}: {faults.duplicated(plugin, found)}")
    try:
        return found[0].load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # `sys.exit()` in a plug-in must not end the worker.
        raise PluginError(f"{who}: {faults.not_loaded(found[0], error)}") from error


def wrap(observer: Any, name: str | None = None) -> LoadedObserver:
    """The observer that was handed over as an object.

    Raises:
        PluginError: It implements no hook, or one that there is not.
    """
    name = name or type(observer).__name__
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(ObserverSpec)
    try:
        manager.register(observer, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"observer {name!r}: {error}") from error
    if not manager.get_hookcallers(observer):
        raise PluginError(
            f"observer {name!r}: {observer!r:.100} implements no hook; mark methods with @hookimpl of "
            "durable_monty.observerspecs"
        )
    return LoadedObserver(name, observer, manager)


def missing_message(plugin: str, installed: Sequence[str]) -> str:
    """What to say about an observer that is not installed."""
    near = difflib.get_close_matches(plugin, installed, 1)
    hint = f"did you mean {near[0]!r}? Else run" if near else "run"
    return (
        f"no observer {plugin!r} is installed in {sys.prefix}; installed: {', '.join(sorted(installed)) or 'none'}; "
        f"{hint} `pip install durable-monty-{plugin}`"
    )


class Observers:
    """Tells observers, in a thread that is there for nothing else, behind a queue that does not grow without bound.

    Args:
        max_queued: Most facts that wait; what comes on top is dropped and counted.
    """

    def __init__(self, observers: Iterable[LoadedObserver], max_queued: int = MAX_QUEUED) -> None:
        self._observers = list(observers)
        self._max_queued = max_queued
        self._queue: deque[Event] = deque()
        self._news = threading.Condition()
        self._dropped = 0
        self._is_ending = False
        self._ends_at = float("inf")
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """How many facts were dropped so far."""
        return self._dropped

    def start(self, worker: WorkerInfo) -> None:
        """Begin to tell them."""
        self._thread = threading.Thread(target=self._run, args=(worker,), name="durable-monty-observers", daemon=True)
        self._thread.start()

    def tell(self, events: Sequence[Event]) -> None:
        """Take facts that are durable, in their order; from any thread, never waiting for an observer."""
        if not events:
            return
        with self._news:
            room = self._max_queued - len(self._queue)
            self._queue.extend(events[:room] if room < len(events) else events)
            if room < len(events):
                self._drop(len(events) - max(room, 0))
            self._news.notify()

    def trace_contexts(self, calls: Sequence[StartingCall]) -> dict[str, str]:
        """What observers want to travel with these attempts, by job id."""
        contexts: dict[str, str] = {}
        for observer in reversed(self._observers):
            for answer in observer.call("trace_contexts", calls=calls):
                contexts |= _checked_contexts(answer)
        return contexts

    def stop(self, grace_seconds: float = STOP_SECONDS) -> None:
        """Tell what is left and end; what they have not heard after the grace is dropped and counted."""
        with self._news:
            self._is_ending = True
            self._ends_at = time.monotonic() + grace_seconds
            self._news.notify()
        if self._thread is not None:
            # The thread may be inside an observer that never returns.
            self._thread.join(grace_seconds)
        with self._news:
            if self._queue:
                self._drop(len(self._queue))
                self._queue.clear()

    def _drop(self, count: int) -> None:
        if not self._dropped:
            log.warning(
                "observers are too slow: they miss what has become durable meanwhile; this is not logged again",
                extra={"waiting": self._max_queued},
            )
        self._dropped += count

    def _run(self, worker: WorkerInfo) -> None:
        self._call("worker_started", worker=worker)
        while batch := self._next_batch():
            hook, argument = _HOOKS[type(batch[0])]
            self._call(hook, **{argument: batch})
        if time.monotonic() < self._ends_at:
            self._call("worker_stopped", worker=worker)

    def _next_batch(self) -> list[Event]:
        """Facts of one kind that follow each other; waits for them; none: it is over."""
        with self._news:
            while not self._queue and not self._is_ending:
                self._news.wait()
            if time.monotonic() >= self._ends_at:
                return []
            batch: list[Event] = []
            while self._queue and len(batch) < MAX_BATCH and (not batch or type(self._queue[0]) is type(batch[0])):
                batch.append(self._queue.popleft())
            return batch

    def _call(self, hook: str, **arguments: Any) -> None:
        for observer in self._observers:
            observer.call(hook, **arguments)


def _checked_contexts(answer: Any) -> dict[str, str]:
    if not isinstance(answer, Mapping):
        return {}
    return {
        str(key): context
        for key, context in answer.items()
        if isinstance(context, str) and 0 < len(context) <= _MAX_CONTEXT_CHARACTERS
    }

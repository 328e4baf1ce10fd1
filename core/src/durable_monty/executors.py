"""The executors that one worker uses: loaded when the first call needs them, stopped together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from durable_monty import plugins
from durable_monty.durations import backoff_seconds
from durable_monty.errors import ConfigError, PluginError
from durable_monty.hookspecs import ExecutorContext
from durable_monty.loaded import LoadedExecutor
from durable_monty.models import Heartbeat, Outcome
from durable_monty.remote import Transaction

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 30.0

PluginOf = Callable[[str], tuple[str, dict[str, Any]]]


class Executors:
    """Executors by name.

    Args:
        plugin_of: The plug-in and the settings of an executor, by its name.
        deliver: Takes the outcomes that an executor tells of by itself, with the executor's name.
        loaded: Told of each executor once, when it is ready.
        is_signed: Whether envelopes are signed.
        transaction: Makes the transaction of a job whose function runs in this process.
    """

    def __init__(
        self,
        plugin_of: PluginOf,
        deliver: Callable[[str, Sequence[Outcome | Heartbeat]], None],
        loaded: Callable[[LoadedExecutor], None],
        *,
        is_signed: bool = False,
        transaction: Callable[[str], Transaction] | None = None,
    ) -> None:
        self._plugin_of = plugin_of
        self._deliver = deliver
        self._tell_loaded = loaded
        self._is_signed = is_signed
        self._transaction = transaction
        self._loaded: dict[str, LoadedExecutor] = {}
        self._broken: set[str] = set()
        # Executors that could not start, and when they are started again.
        self._waiting: dict[str, tuple[LoadedExecutor, int, float]] = {}

    def use(self, name: str, executor: Any) -> None:
        """Use an object as the executor of this name.

        Raises:
            PluginError: It has neither the hooks nor `submit_call` and `get_stats`.
        """
        self._start(plugins.wrap(executor, name), 0)

    def load(self, name: str) -> LoadedExecutor | None:
        """The executor of this name, loaded now if it is not; None while it cannot start.

        Raises:
            PluginError: Its plug-in is missing or broken.
            ConfigError: Its settings cannot be used.
        """
        if name in self._loaded:
            return self._loaded[name]
        if name not in self._waiting:
            plugin, options = self._plugin_of(name)
            return self._start(plugins.load(name, plugin, options), 0)
        executor, failures, start_at = self._waiting[name]
        return self._start(executor, failures) if time.monotonic() >= start_at else None

    def get(self, name: str) -> LoadedExecutor | None:
        """As `load`, but None also if it cannot be had; that is logged once, and its calls stay pending."""
        if name in self._broken:
            return None
        try:
            return self.load(name)
        except (PluginError, ConfigError) as error:
            self._broken.add(name)
            log.error("executor cannot be used, its calls stay pending: %s", error, extra={"executor": name})
            return None

    @property
    def loaded(self) -> list[LoadedExecutor]:
        """Those that are in use."""
        return list(self._loaded.values())

    def stop(self, grace_seconds: float) -> None:
        """Stop all of them."""
        # One whose start failed may hold what it had opened by then.
        for executor in (*self._loaded.values(), *(waiting for waiting, _, _ in self._waiting.values())):
            try:
                executor.stop(grace_seconds)
            except Exception as error:
                log.warning("stopping an executor failed", extra={"executor": executor.name}, exc_info=error)
        self._loaded.clear()
        self._waiting.clear()

    def _start(self, executor: LoadedExecutor, failures: int) -> LoadedExecutor | None:
        name = executor.name
        context = ExecutorContext(
            name,
            lambda outcomes: self._deliver(name, outcomes),
            logging.getLogger(f"durable_monty.executors.{name}"),
            self._is_signed,
            self._transaction,
        )
        try:
            executor.start(context)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            pause = backoff_seconds(failures, _FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
            log.warning(
                "executor did not start, its calls wait: %s: %s", type(error).__name__, error, extra={"executor": name}
            )
            self._waiting[name] = (executor, failures + 1, time.monotonic() + pause)
            return None
        self._waiting.pop(name, None)
        self._loaded[name] = executor
        self._tell_loaded(executor)
        return executor

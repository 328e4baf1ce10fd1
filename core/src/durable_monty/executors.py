"""The executors that one worker uses: loaded when the first call needs them, stopped together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from durable_monty import plugins
from durable_monty.errors import ConfigError, PluginError
from durable_monty.hookspecs import ExecutorContext
from durable_monty.loaded import LoadedExecutor
from durable_monty.models import Outcome

log = logging.getLogger(__name__)

PluginOf = Callable[[str], tuple[str, dict[str, Any]]]


class Executors:
    """Executors by name.

    Args:
        plugin_of: The plug-in and the settings of an executor, by its name.
        deliver: Takes the outcomes that an executor tells of by itself, with the executor's name.
        loaded: Told of each executor once, when it is ready.
        is_signed: Whether envelopes are signed.
    """

    def __init__(
        self,
        plugin_of: PluginOf,
        deliver: Callable[[str, Sequence[Outcome]], None],
        loaded: Callable[[LoadedExecutor], None],
        *,
        is_signed: bool = False,
    ) -> None:
        self._plugin_of = plugin_of
        self._deliver = deliver
        self._tell_loaded = loaded
        self._is_signed = is_signed
        self._loaded: dict[str, LoadedExecutor] = {}
        self._broken: set[str] = set()

    def use(self, name: str, executor: Any) -> LoadedExecutor:
        """Use an object as the executor of this name.

        Raises:
            PluginError: It has neither the hooks nor `submit_call` and `get_stats`.
        """
        return self._start(plugins.wrap(executor, name))

    def load(self, name: str) -> LoadedExecutor:
        """The executor of this name, loaded now if it is not.

        Raises:
            PluginError: Its plug-in is missing or broken.
            ConfigError: Its settings cannot be used.
        """
        found = self._loaded.get(name)
        if found is None:
            plugin, options = self._plugin_of(name)
            found = self._start(plugins.load(name, plugin, options))
        return found

    def get(self, name: str) -> LoadedExecutor | None:
        """As `load`, but None if it cannot be had; that is logged once and its calls stay pending."""
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
        for executor in self._loaded.values():
            try:
                executor.stop(grace_seconds)
            except Exception as error:
                log.warning("stopping an executor failed", extra={"executor": executor.name}, exc_info=error)
        self._loaded.clear()

    def _start(self, executor: LoadedExecutor) -> LoadedExecutor:
        name = executor.name
        executor.start(
            ExecutorContext(
                name,
                lambda outcomes: self._deliver(name, outcomes),
                logging.getLogger(f"durable_monty.executors.{name}"),
                self._is_signed,
            )
        )
        self._loaded[name] = executor
        self._tell_loaded(executor)
        return executor

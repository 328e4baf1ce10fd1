"""The conformance kit on one executor of the configuration: `durable-monty plugin test NAME`."""

from __future__ import annotations

import os
from typing import Any

import pytest

from durable_monty import config, plugins, remote
from durable_monty.testing import ExecutorSuite
from durable_monty.testing.executors.driver import Driver

NAME_VARIABLE = "KIT_EXECUTOR"
CONFIG_VARIABLE = "KIT_CONFIG"


class TestConfigured(ExecutorSuite):
    """The executor that `KIT_EXECUTOR` names, on its real back end."""

    @pytest.fixture
    def executor(self) -> Any:
        """As the worker would make it."""
        name = os.environ[NAME_VARIABLE]
        chosen = config.load(os.environ.get(CONFIG_VARIABLE) or None)
        # As in a worker: envelopes are signed with the configured key.
        remote.configure(signing_key=chosen.signing_key, allow=_allowed(chosen.functions.allow))
        return plugins.load(name, *chosen.plugin_of(name)).implementation

    def _unreachable(self) -> Driver | None:
        """Nobody can tell from a configuration how to make its back end be away."""
        return None


def _allowed(patterns: list[str]) -> list[str]:
    """An allow-list that lets the kit's functions run; an empty one lets every decorated function run."""
    return [*patterns, "durable_monty.testing.functions.*"] if patterns else []

"""The conformance kit for executor plug-ins: `ExecutorSuite`.

    class TestMine(ExecutorSuite):
        @pytest.fixture
        def executor(self):
            return Executor(Settings())

The promises are in `submission`, `polling`, `outcomes`, `completion`, `time`, `settings` and `load`.
"""

from __future__ import annotations

import pytest

# Before the modules are imported: a promise that fails shows the values it compared.
pytest.register_assert_rewrite(
    *[f"{__name__}.{name}" for name in ("completion", "load", "outcomes", "polling", "settings", "submission", "time")]
)

from durable_monty.testing.executors.suite import ExecutorSuite  # noqa: E402

__all__ = ["ExecutorSuite"]

"""The whole suite."""

from __future__ import annotations

from typing import Any

from durable_monty.testing.executors.load import Load

_GUARD = "test_no_promise_is_overridden_without_a_reason"


class ExecutorSuite(Load):
    """What every executor promises. Subclass it, and give the fixture `executor`.

        class TestMine(ExecutorSuite):
            @pytest.fixture
            def executor(self):
                return Executor(Settings())

    Which promises hold for an executor, and which side of them, is read from its `capabilities`. What else may be set
    or overridden is in `durable_monty.testing.executors.base.Promises`. A promise that an executor cannot keep is
    overridden with `@pytest.mark.xfail(reason="...")`; without a reason the suite fails and names it.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if _GUARD in vars(cls):
            raise TypeError(f"{cls.__name__} overrides {_GUARD}, which watches over all the others; take it away")

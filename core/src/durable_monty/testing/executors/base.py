"""What every group of promises stands on: the fixtures, and what an author may override."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from durable_monty.models import Capabilities, Job
from durable_monty.testing.executors.driver import Driver
from durable_monty.testing.other_process import settings_values

NO_SUCH_JOB = Job("kit-of-nobody-0-1")


class Promises:
    """The base of the groups of promises.

    An author must give the fixture `executor`. What may be overridden besides stands below, up to the first fixture;
    a promise may not, unless it is marked `@pytest.mark.xfail(reason=...)`.

    Attributes:
        patience_seconds: How long the kit waits for what must come about, before it says that it did not.
        pause_seconds: How long a function runs that is to be seen running. More than a call takes to be submitted.
        timeout_seconds: The time limit of a call that is to run into it.
        largest_batch: The largest batch that is submitted, where `max_batch` is larger.
        open_jobs: How many jobs are open at once where requests are counted.
        requests_per_hook: How many connections or processes one hook call may start, whatever the number of jobs.
    """

    patience_seconds: float = 60.0
    pause_seconds: float = 2.0
    timeout_seconds: float = 1.0
    largest_batch: int = 100
    open_jobs: int = 10_000
    requests_per_hook: int = 10

    def make_executor(self) -> Any:
        """A second executor on the same back end, as another worker would make it.

        By default one of the same class, made with `executor.settings`. One that is overridden is also called in
        another process, where there are no fixtures: let it take what it needs from the environment.
        """
        executor = self._executor
        return type(executor)(type(executor).Settings(**settings_values(executor)))

    def make_unreachable(self) -> Any:
        """An executor whose back end does not answer: a wrong port will do. None: its back end is this process."""
        return None

    def kill_remote(self, job: Job) -> None:
        """Kill what is running this job, as a machine dies. By default the kit's function kills itself."""
        raise NotImplementedError

    def requests_made(self) -> int | None:
        """Requests to the back end so far, if the test can count them. By default connections and processes count."""
        return None

    @pytest.fixture
    def executor(self) -> Any:
        """The executor that is tested; its back end is there, and runs calls."""
        pytest.fail(
            f"{type(self).__name__} has no fixture `executor`: define one that returns the executor to test",
            pytrace=False,
        )

    @pytest.fixture(autouse=True)
    def _remember(self, executor: Any) -> None:
        self._executor = executor

    @pytest.fixture
    def kit(self, executor: Any) -> Iterator[Driver]:
        """The executor, driven as the core drives it."""
        driver = Driver(executor, self.patience_seconds)
        yield driver
        driver.stop()

    @pytest.fixture
    def other(self, executor: Any) -> Iterator[Driver]:
        """A second one on the same back end, for a worker that takes over."""
        driver = Driver(self.make_executor(), self.patience_seconds)
        yield driver
        driver.stop()

    @pytest.fixture
    def can(self, executor: Any) -> Capabilities:
        """What the executor declares."""
        declared: Capabilities = executor.capabilities
        return declared

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Promises, name)

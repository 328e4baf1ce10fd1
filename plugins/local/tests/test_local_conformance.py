"""The conformance kit on the local executor, in each of its modes."""

from __future__ import annotations

import pytest

from durable_monty.testing import ExecutorSuite
from durable_monty_local import Executor, LocalSettings


class TestThreads(ExecutorSuite):
    pause_seconds = 0.5
    timeout_seconds = 0.2

    @pytest.fixture
    def executor(self):
        return Executor(LocalSettings(mode="thread", workers=4))


class TestProcesses(ExecutorSuite):
    pause_seconds = 0.5
    timeout_seconds = 0.2

    @pytest.fixture
    def executor(self):
        return Executor(LocalSettings(mode="process", workers=2))


class TestInline(ExecutorSuite):
    pause_seconds = 0.2
    timeout_seconds = 0.1

    @pytest.fixture
    def executor(self):
        return Executor(LocalSettings(mode="inline"))

    @pytest.mark.xfail(reason="inline runs a call inside submit: it is for tests")
    def test_submit_returns_before_its_calls_have_ended(self, kit):
        super().test_submit_returns_before_its_calls_have_ended(kit)

    @pytest.mark.xfail(reason="inline runs a call inside submit: no job is ever running")
    def test_a_running_job_is_silence(self, kit):
        super().test_a_running_job_is_silence(kit)

    @pytest.mark.xfail(reason="inline runs a plain function in the worker's own thread, which nothing can interrupt")
    def test_a_call_that_runs_longer_than_it_may_times_out(self, kit):
        super().test_a_call_that_runs_longer_than_it_may_times_out(kit)

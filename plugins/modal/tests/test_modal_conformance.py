"""The conformance kit with the real `modal` client against a control plane on this machine and real processes."""

from __future__ import annotations

import pytest

from durable_monty.testing import ExecutorSuite
from durable_monty_modal import Executor, ModalSettings
from durable_monty_modal.sizes import name_of, size_of
from support import servers
from support.modal_server import serving


@pytest.fixture(scope="module")
def server():
    """Containers stay warm from promise to promise."""
    with serving() as running:
        # Modal fixes a time limit when a function is deployed: one for each that the kit asks for.
        for seconds in (TestModal.timeout_seconds, TestModal.patience_seconds):
            running.deploy(name=name_of("run", size_of(None, seconds)), timeout_seconds=seconds)
        yield running


class TestModal(ExecutorSuite):
    pause_seconds = 1.5
    largest_batch = 40

    @pytest.fixture
    def executor(self, server, monkeypatch):
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        self._monkeypatch = monkeypatch
        return Executor(ModalSettings(poll_interval_seconds=0.1))

    def make_unreachable(self):
        # The client reads its server's address when it connects.
        self._monkeypatch.setenv("MODAL_SERVER_URL", f"http://127.0.0.1:{servers.free_port()}")
        return Executor(ModalSettings())

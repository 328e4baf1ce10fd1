"""The conformance kit, over a real SSH connection to this machine."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import pytest
from durable_monty_ssh import Executor, SSHSettings

from durable_monty.testing import ExecutorSuite

sys.path.insert(0, str(Path(__file__).parent))
from sshd import sshd


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    with sshd(tmp_path_factory.mktemp("sshd")) as options:
        yield options


class TestSSH(ExecutorSuite):
    largest_batch = 20
    open_jobs = 2_000

    @pytest.fixture
    def executor(self, options, tmp_path):
        host = f"{getpass.getuser()}@127.0.0.1"
        return Executor(SSHSettings(host=host, options=options, python=sys.executable, folder=str(tmp_path / "jobs")))

    def make_unreachable(self):
        return Executor(SSHSettings(host="127.0.0.1", options=["-p", "1"]))

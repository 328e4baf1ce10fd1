"""The conformance kit on a real Valkey server and two stock `rq worker` processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from durable_monty.testing import ExecutorSuite
from durable_monty_rq import Executor, RQSettings
from support import servers
from support.supervised import Supervised

QUEUE = "kit"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    command = [str(Path(sys.executable).parent / "rq"), "worker", QUEUE, "--quiet", "--url"]
    folder = tmp_path_factory.mktemp("rq-kit")
    with servers.valkey() as server:
        workers = [
            Supervised(f"worker-{number}", [*command, server.url], dict(os.environ), folder / f"{number}.log")
            for number in range(2)
        ]
        for worker in workers:
            worker.ensure_running()
        yield server.url
        for worker in workers:
            worker.kill(children=True)


class TestRQ(ExecutorSuite):
    pause_seconds = 1.5
    largest_batch = 40

    @pytest.fixture
    def executor(self, redis_url):
        # What a worker that died has read comes back sooner than in production.
        settings = RQSettings(
            redis_url=redis_url,
            queue=QUEUE,
            sweep_interval_seconds=0.3,
            lost_after_seconds=6,
            claim_after_seconds=1,
        )
        return Executor(settings)

    def make_unreachable(self):
        return Executor(RQSettings(redis_url=f"redis://127.0.0.1:{servers.free_port()}/0"))

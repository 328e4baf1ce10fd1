"""A real Valkey server and stock `rq worker` processes, one of each kind, started when a test first needs them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from rq import Worker as RQWorker

from support import servers
from support.rq_rig import Rig
from support.workers import eventually

TESTS = Path(__file__).parent.parent.parent.parent / "tests"


@pytest.fixture(scope="session")
def valkey() -> Iterator[servers.Valkey]:
    """A server for all tests that do not hurt it."""
    with servers.valkey() as server:
        yield server


@pytest.fixture(scope="session")
def start_rq_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `rq worker QUEUE ...` and waits until it listens; it is killed at the end, with what it started."""
    folder = tmp_path_factory.mktemp("rq")
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str, queue: str, *options: str, environment: dict[str, str] | None = None, program=None):
        command = [*(program or [Path(sys.executable).parent / "rq"]), "worker", queue, "--url", url, *options]
        name = f"{queue}-{uuid.uuid4().hex[:8]}"
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--name", name],
                env={**os.environ, "PYTHONPATH": str(TESTS), **(environment or {})},
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        process.log = folder / f"{name}.log"
        started.append(process)
        connection = redis.Redis.from_url(url)
        eventually(lambda: name in {worker.name for worker in RQWorker.all(connection=connection)})
        connection.close()
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture(scope="session")
def listening(valkey, start_rq_worker) -> Callable[..., str]:
    """The name of a queue that a stock worker with these options listens on, the same worker for all tests."""
    queues: dict[tuple[str, ...], str] = {}

    def queue_of(*options: str) -> str:
        if options not in queues:
            queue = f"q{len(queues)}"
            start_rq_worker(valkey.url, queue, *options)
            queues[options] = queue
        return queues[options]

    return queue_of


@pytest.fixture
def rig(valkey, lite_service) -> Iterator[Rig]:
    """A service on SQLite, and executors with a stream of results of their own."""
    made = Rig(valkey.url, lite_service)
    yield made
    made.close()

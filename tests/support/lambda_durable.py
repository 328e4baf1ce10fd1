"""A Lambda service that has durable executions: AWS' own local runner stands behind it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.lambda_service import REGION, LambdaService
from support.servers import free_port
from support.workers import eventually


@contextlib.contextmanager
def durable_service(sqs: Any, folder: Path) -> Iterator[LambdaService]:
    """The service, with a runner that logs into the folder."""
    runner_port = free_port()
    opened = LambdaService(sqs, runner_url=f"http://127.0.0.1:{runner_port}")
    command = [
        Path(sys.executable).parent / "dex-local-runner", "start-server", "--host", "127.0.0.1", "--port",
        str(runner_port), "--lambda-endpoint", opened.url, "--local-runner-endpoint", opened.runner_url,
        "--local-runner-region", REGION,
    ]  # fmt: skip
    # The runner signs what it asks of the service, which does not look.
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with (folder / "runner.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        eventually(lambda: _answers(opened.runner_url))
        yield opened
    finally:
        opened.close()
        process.kill()
        process.wait()


def _answers(url: str | None) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

"""A worker process for tests that kill it: `policy_worker.py URL EXECUTION`; ends when the execution has ended."""

from __future__ import annotations

import sys

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from support import policy_functions  # noqa: F401 - registers its functions


def main(url: str, execution_id: str) -> None:
    config = Config.model_validate({"worker": {"lease_seconds": 1, "timeout_grace_seconds": 0.5}})
    service = OrchestratorService(init_db(url, synchronous="NORMAL"), config)
    worker = Worker(service, poll_interval=0.1)
    worker.run_until(lambda: service.runtime.store.execution(execution_id).status.is_terminal)


main(sys.argv[1], sys.argv[2])

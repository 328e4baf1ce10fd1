"""A process that kills itself before a chosen statement: `killed_service.py URL ACTION PATTERN NUMBER [ARGUMENT]...`.

The `NUMBER`th statement in which the regular expression PATTERN is found is not run any more.
"""

from __future__ import annotations

import os
import re
import signal
import sys

from sqlalchemy import Engine

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.chores import Cleaner
from durable_monty.config import Config, RetentionTable
from support import functions as host
from support.statements import before_each_statement


def kill_before(pattern: str, number: int) -> None:
    seen = 0

    def count(statement: str) -> None:
        nonlocal seen
        seen += re.search(pattern, statement) is not None
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    before_each_statement(Engine, count)


def start(service: OrchestratorService, **options: object) -> str:
    return service.start_execution("await add(n, 1)", [host.add], **{"inputs": {"n": 2}, **options})


def restart(service: OrchestratorService) -> None:
    start(service, execution_id="one", id_reuse="restart", tags={"run": "second"}, inputs={"n": 7})


def singleton(service: OrchestratorService) -> None:
    start(service, singleton_key="s", tags={"a": "b"})


def debounce(service: OrchestratorService) -> None:
    start(service, debounce_key="d", delay_seconds=3600, tags={"run": "second"}, inputs={"n": 7})


def prune(service: OrchestratorService, archive: str) -> None:
    service.delete_ended(0, archive=archive)


def work(service: OrchestratorService) -> None:
    Worker(service, poll_interval=0.05).run(until_complete=True)


def clean(service: OrchestratorService) -> None:
    settings = RetentionTable(delete_after_seconds=86_400)
    Cleaner(service.runtime.store, settings).clean(service.runtime.clock())


def backfill(service: OrchestratorService, begin: str, end: str) -> None:
    service.backfill("tick", float(begin), float(end))


def wait(service: OrchestratorService, execution_id: str) -> None:
    print("waiting", flush=True)
    service.wait(execution_id)


def main(url: str, action: str, pattern: str, number: str, *arguments: str) -> None:
    config = Config.model_validate({"worker": {"lease_seconds": 2}})
    service = OrchestratorService(init_db(url, synchronous="NORMAL"), config)
    kill_before(pattern, int(number))
    globals()[action](service, *arguments)
    service.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

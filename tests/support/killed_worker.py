"""A worker that kills itself at a chosen step: `killed_worker.py URL STEP NUMBER`."""

from __future__ import annotations

import os
import signal
import sys

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from support import functions as host

MANY = """
from asyncio import gather, sleep

async def branch(i):
    await sleep(0.01)
    return await note(path, f"b{i}")

first = await note(path, "a")
rest = await gather(*[branch(i) for i in range(3)])
last = await note(path, "c")
third = await fail_until_third()
[first, *rest, last, third]
"""
ONE = '[await note(path, "z")]'


def main(url: str, step: str, number: int) -> None:
    seen = 0

    def on_step(name: str) -> None:
        nonlocal seen
        seen += name == step
        if name == step and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    config = Config.model_validate({"worker": {"lease_seconds": 2}})
    service = OrchestratorService(init_db(url, synchronous="NORMAL"), config)
    inputs = {"path": os.environ["NOTES"]}
    service.start_execution(MANY, [host.note, host.fail_until_third], inputs, execution_id="many")
    service.start_execution(ONE, [host.note], inputs, execution_id="one")
    Worker(service, on_step=on_step).run(until_complete=True)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

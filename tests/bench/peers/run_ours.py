"""durable-monty as a user runs it: default configuration, local executor, one worker in a thread of its own."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import functions  # noqa: E402
from opened import opened  # noqa: E402
from shared import COUNT, URL, WORKLOAD, check, tell, tell_latencies  # noqa: E402

from durable_monty import Worker  # noqa: E402

_CHAIN = "x = 0\nfor i in range(n):\n    x = await add(x, 1)\nx"


def main() -> None:
    with opened(URL) as service:
        worker = Worker(service)
        thread = threading.Thread(target=worker.run)
        thread.start()

        def chain(length: int) -> None:
            ended = service.wait(service.start_execution(_CHAIN, [functions.add], {"n": length}), 600)
            check(ended["output"], length)

        try:
            chain(1)
            began_at = time.perf_counter()
            if WORKLOAD == "W1":
                chain(COUNT)
                tell((time.perf_counter() - began_at) / COUNT)
            elif WORKLOAD == "W3":
                started = [service.start_execution(_CHAIN, [functions.add], {"n": 3}) for _ in range(COUNT)]
                for execution_id in started:
                    check(service.wait(execution_id, 600)["output"], 3)
                tell((time.perf_counter() - began_at) / COUNT / 3)
            else:
                tell_latencies(lambda: chain(1))
        finally:
            worker.stop()
            thread.join()


main()

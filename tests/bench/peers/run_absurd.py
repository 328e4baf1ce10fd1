"""Absurd, its worker in a thread of this process that looks every 10 ms (its default: 250 ms); schema by `absurdctl init`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from absurd_sdk import Absurd
from shared import COUNT, URL, WORKLOAD, check, tell, tell_latencies

subprocess.run(
    [Path(sys.executable).parent / "absurdctl", "init", "-d", URL], check=True, stdout=subprocess.DEVNULL, timeout=60
)
client, server = Absurd(URL), Absurd(URL)
client.create_queue("default")


@server.register_task(name="chain")
def chain(parameters, context):
    x = 0
    for _ in range(parameters["n"]):
        x = context.step("add", lambda x=x: x + 1)
    return x


def finish(task_id: str, expected: int) -> None:
    while (found := client.fetch_task_result(task_id)) is None or found.state not in ("completed", "failed"):
        time.sleep(0.001)
    check(found.result, expected)


def start(length: int) -> str:
    return client.spawn("chain", {"n": length}, queue="default")["task_id"]


batch_size = 50 if WORKLOAD == "W3" else 1
threading.Thread(
    target=lambda: server.start_worker(concurrency=1, batch_size=batch_size, poll_interval=0.01), daemon=True
).start()
finish(start(1), 1)
began_at = time.perf_counter()
if WORKLOAD == "W1":
    finish(start(COUNT), COUNT)
    tell((time.perf_counter() - began_at) / COUNT)
elif WORKLOAD == "W3":
    for task_id in [start(3) for _ in range(COUNT)]:
        finish(task_id, 3)
    tell((time.perf_counter() - began_at) / COUNT / 3)
else:
    tell_latencies(lambda: finish(start(1), 1))
os._exit(0)

"""One feature, worked on by processes that are killed one after the other: `killed_features.py URL FOLDER FEATURE`.

The first process is killed at the first step of its worker, the second at the second step, and so on, until one gets to
the end. Each is a fork of this process, which opens nothing itself: that is quicker than to start an interpreter.
Prints how many were killed, and where.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from support import children
from support import functions as host

FLOW = """from asyncio import gather, sleep
from datetime import datetime, timedelta, timezone
from durable_monty.flow import race, timeout, signal, child, start_child, publish, emit, saga, sleep_until, send_signal
"""
FUNCTIONS = [host.note, host.nap, host.must_exist, host.fail]
MOST_LIVES = 40
LONGEST_LIFE_SECONDS = 60

RACE = """
async def loser(name, seconds):
    try:
        await nap(seconds)
        await note(path, "went on")
    finally:
        await note(path, f"cleaned {name}")
first = await race(loser("race", 600), note(path, "won"))
try:
    await timeout(loser("timeout", 600), 0.05)
except TimeoutError:
    second = "late"
await sleep(0.05)
[list(first), second, await note(path, "end")]
"""
SIGNALS = """
async def waiting():
    return [await signal("n") for _ in range(4)]
out = await gather(waiting(), note(path, "a"))
[out, await note(path, "b"), await race(signal("never"), note(path, "c"))]
"""
CHILDREN = """
values = await gather(child("doubled", inputs={"value": 2}), child("doubled", inputs={"value": 3, "extra": 1}))
try:
    await child("failing_child", inputs={"text": "bad"})
except ValueError as e:
    failed = str(e)
won, _ = await race(note(path, "a"), child("patient", execution_id="lost"))
await start_child("patient", execution_id="left")
await start_child("doubled", inputs={"value": 5}, execution_id="alone", parent_close="abandon")
[values, failed, won, await note(path, "b")]
"""
TOLD = """
for i in range(5):
    emit("log", i)
    publish("state", i)
    await note(path, str(i))
    emit("log", [i])
publish("state", "end")
"""
STEERED = """
a = [await note(path, str(i)) for i in range(4)]
await must_exist(path + ".open")
[*a, await note(path, "end")]
"""
DEADLINE = """
try:
    await note(path, "begun")
    await nap(600)
finally:
    await note(path, "cleaned")
    await note(path, "up")
"""
SAGA = """
s = saga()
try:
    for i in range(3):
        s.add(note, path, f"undo {await note(path, f'do {i}')}")
    await fail("ValueError", "no")
except Exception as e:
    await s.undo()
    out = type(e).__name__
out
"""
SLEEP = """
began = datetime.now(timezone.utc)
await gather(sleep_until(began + timedelta(milliseconds=600)), note(path, "beside"))
first = await note(path, "between")
await sleep_until(began)
await sleep(0.1)
[first, (datetime.now(timezone.utc) - began).total_seconds() >= 0.7]
"""

Do = Callable[[OrchestratorService], object]


@dataclass
class Feature:
    """What is run, and what is done to it from outside.

    Attributes:
        before: By life, what is done before it begins: after the death of the one before.
        at_kill: By life, what is done just before it is killed.
    """

    code: str
    before: dict[int, Do] = field(default_factory=dict)
    at_kill: dict[int, Do] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def _send(value: int) -> Do:
    return lambda service: service.signal("it", "n", value)


def _open_and_retry(service: OrchestratorService) -> None:
    if service.get_execution("it")["status"] == "failed":
        Path(os.environ["NOTES"] + ".open").touch()
        service.retry("it")


FEATURES = {
    "race": Feature(RACE),
    "signals": Feature(
        SIGNALS,
        before={1: _send(0), 3: _send(2)},
        at_kill={2: _send(1), 4: _send(3)},
    ),
    "children": Feature(CHILDREN, options={"workflows": [children.doubled, children.failing_child, children.patient]}),
    "told": Feature(TOLD),
    "steered": Feature(
        STEERED,
        before={3: lambda service: service.resume("it")},
        at_kill={2: lambda service: service.pause("it", "at the kill")},
    ),
    "deadline": Feature(DEADLINE, options={"deadline_seconds": 1.5}),
    "saga": Feature(SAGA),
    "sleep_until": Feature(SLEEP),
}


def opened(url: str) -> OrchestratorService:
    return OrchestratorService(init_db(url, synchronous="NORMAL"), Config())


def forked(do: Callable[[], object]) -> int:
    """Run in a process of its own; returns its exit code, negative if it was killed."""
    pid = os.fork()
    if not pid:
        signal.alarm(LONGEST_LIFE_SECONDS)
        code = 1
        try:
            do()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(url: str, feature: Feature) -> list[str]:
    places = Path(os.environ["NOTES"] + ".kills")
    places.touch()

    def begin() -> None:
        inputs = {"path": os.environ["NOTES"]}
        opened(url).start_execution(FLOW + feature.code, FUNCTIONS, inputs, execution_id="it", **feature.options)

    def live(life: int) -> None:
        steps = 0

        def on_step(name: str) -> None:
            nonlocal steps
            steps += 1
            if steps == life:
                feature.at_kill.get(life, lambda service: None)(opened(url))
                host.note.__wrapped__(str(places), name)
                os.kill(os.getpid(), signal.SIGKILL)

        service = opened(url)
        feature.before.get(life, lambda service: None)(service)
        Worker(service, on_step=on_step).run(until_complete=True)
        if feature.code is STEERED:
            _open_and_retry(service)

    assert forked(begin) == 0
    for life in range(1, MOST_LIVES):
        code = forked(lambda life=life: live(life))
        assert code in (0, -signal.SIGKILL), code
        is_over = code == 0 and forked(lambda: _require_end(url)) == 0
        if is_over:
            return places.read_text().splitlines()
        if code == 0:
            # It waits for the next life, and for what is done before it.
            time.sleep(0.01)
    raise AssertionError("it does not come to an end")


def _require_end(url: str) -> None:
    if opened(url).get_execution("it")["status"] not in ("completed", "cancelled", "failed"):
        raise SystemExit(1)


if __name__ == "__main__":
    os.environ["NOTES"] = sys.argv[2]
    print(json.dumps(main(sys.argv[1], FEATURES[sys.argv[3]])))

"""Workers that kill themselves right after a chosen transaction or hook: `boundaries.py URL FOLDER [all]`.

First one runs undisturbed and notes every boundary it passes. Then for each of them an execution of its own is run by
three workers, one after the other: the first dies right after that boundary, the second right after it has taken over
what the first has left, the third finishes. All are forks of this process, so that nothing is imported again.
Prints the names of the boundaries, one line each, with the exit codes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from support import functions as host
from support.filed import Filed

MANY = """
from asyncio import gather, sleep

async def branch(i):
    await sleep(0.01)
    return await note(path, f"b{i}")

first = await note(path, "a")
rest = await gather(*[branch(i) for i in range(3)])
third = await fail_until_third()
[first, *rest, third]
"""
STORE = (
    *("start", "register", "take_over", "claim", "commit", "claim_calls"),
    *("store_tokens", "put_back", "reattempt", "release"),
)


def run_worker(url: str, folder: Path, execution_id: str, passed: Callable[[str], None]) -> None:
    store = init_db(url, synchronous="NORMAL")
    for name in STORE:
        setattr(store, name, _told(getattr(store, name), name, passed))
    with OrchestratorService(store, Config()) as service:
        inputs = {"path": str(folder / f"{execution_id}.notes")}
        service.start_execution(MANY, [host.note, host.fail_until_third], inputs, execution_id=execution_id)
        Worker(service, Filed(folder, passed)).run(until_complete=True)


def _told(method: Callable[..., Any], name: str, passed: Callable[[str], None]) -> Callable[..., Any]:
    def told(*args: Any, **kwargs: Any) -> Any:
        answer = method(*args, **kwargs)
        passed(name)
        return answer

    return told


def forked(url: str, folder: Path, execution_id: str, passed: Callable[[str], None]) -> int:
    """The exit code of a worker in a process of its own; less than 0: the signal that ended it."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run_worker(url, folder, execution_id, passed)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying_at(name: str, number: int) -> Callable[[str], None]:
    seen: Counter[str] = Counter()

    def passed(boundary: str) -> None:
        seen[boundary] += 1
        if boundary == name and seen[boundary] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return passed


def main(url: str, folder: Path, is_exhaustive: bool) -> None:
    trace = folder / "trace.txt"

    def write(boundary: str) -> None:
        with trace.open("a") as file:
            file.write(f"{boundary}\n")

    assert forked(url, folder, "undisturbed", write) == 0
    passed = Counter(trace.read_text().split())
    for name, count in sorted(passed.items()):
        for number in range(1, count + 1) if is_exhaustive else sorted({1, count // 2 + 1}):
            execution_id = f"{name}-{number}"
            codes = [
                forked(url, folder, execution_id, dying_at(name, number)),
                forked(url, folder, execution_id, dying_at("take_over", 1)),
                forked(url, folder, execution_id, lambda boundary: None),
            ]
            print(json.dumps([name, number, execution_id, codes]), flush=True)


main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] == ["all"])

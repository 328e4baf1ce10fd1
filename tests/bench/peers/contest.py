"""What every contestant's program shares: its command line, marks between processes, and the line that it prints.

Runs in environments that have nothing of this project, so it imports the standard library only. With `--pin` the whole
process, whatever it starts included, stays on one processor, and workers on one each; that has to come before anything
else is imported.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_WITH_WORKERS = ("W3", "W5")

# Python starts as it does for a user: with modules that were compiled before.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _processors(arguments: Sequence[str]) -> set[int]:
    """Where a pinned process runs: workers on one processor each, who only starts executions for them on any."""
    available = sorted(os.sched_getaffinity(0))
    phase = arguments[arguments.index("--phase") + 1] if "--phase" in arguments else ""
    if phase.startswith("worker"):
        return {available[int(phase.removeprefix("worker")) % len(available)]}
    return set(available) if arguments[1] in _WITH_WORKERS else {available[0]}


if "--pin" in sys.argv:
    os.sched_setaffinity(0, _processors(sys.argv))

_STEP_SECONDS = 0.001
_MARK_SECONDS = 300.0


def arguments() -> argparse.Namespace:
    """The command line of a contestant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    parser.add_argument("--url", required=True, help="an empty database")
    parser.add_argument("--folder", required=True, type=Path, help="an empty folder for marks")
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--synchronous", default="FULL")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--phase", default="")
    return parser.parse_args()


def report(**values: object) -> None:
    """Print what was measured."""
    print("RESULT " + json.dumps(values), flush=True)


def check(found: object, wanted: object) -> None:
    """End the run if the result is wrong: its figures mean nothing."""
    if found != wanted:
        raise SystemExit(f"the result is {found!r}, not {wanted!r}; these figures mean nothing")


def mark(folder: Path, name: str) -> None:
    """Tell other processes that this point is reached, by the clock that they share."""
    path = folder / f"{name}.new"
    path.write_text(repr(time.monotonic()))
    path.rename(folder / name)


def marked(folder: Path, name: str, process: subprocess.Popen[bytes]) -> float:
    """Wait until another process has reached a point; returns when it did."""
    path = folder / name
    ends_at = time.monotonic() + _MARK_SECONDS
    while not path.exists():
        if process.poll() is not None:
            raise SystemExit(f"the process ended with {process.returncode} before {name!r}")
        if time.monotonic() > ends_at:
            raise SystemExit(f"no {name!r} within {_MARK_SECONDS:.0f} s")
        time.sleep(_STEP_SECONDS)
    return float(path.read_text())


def again(chosen: argparse.Namespace, phase: str) -> subprocess.Popen[bytes]:
    """The same program once more, as a process of its own with another phase."""
    command = [sys.executable, sys.argv[0], chosen.workload, "--url", chosen.url, "--folder", str(chosen.folder)]
    command += ["--n", str(chosen.n), "--workers", str(chosen.workers), "--synchronous", chosen.synchronous]
    return subprocess.Popen([*command, "--phase", phase, *(["--pin"] if chosen.pin else [])])


@contextlib.contextmanager
def workers(chosen: argparse.Namespace) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Worker processes, each of which has marked `workerK.up`."""
    processes = [again(chosen, f"worker{number}") for number in range(chosen.workers)]
    try:
        for number, process in enumerate(processes):
            marked(chosen.folder, f"worker{number}.up", process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def killed_and_resumed(chosen: argparse.Namespace) -> None:
    """W4: SIGKILL while the call after N steps runs; then a new process until that call begins again.

    The phases mark `first.reached` and `second.reached` when the call begins, `second.imported` when imports are done.
    """
    process = again(chosen, "first")
    try:
        marked(chosen.folder, "first.reached", process)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    began_at = time.monotonic()
    process = again(chosen, "second")
    try:
        reached_at = marked(chosen.folder, "second.reached", process)
        imported_at = marked(chosen.folder, "second.imported", process)
    finally:
        process.kill()
        process.wait()
    report(seconds=reached_at - imported_at, from_start_seconds=reached_at - began_at)


def resident_bytes(pid: int | str = "self", *, peak: bool = False) -> int:
    """Memory of a process, now or at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:" if peak else "VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """p50 and p95 of latencies, in seconds."""
    ordered = sorted(times)
    return {f"p{percent}": ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] for percent in (50, 95)}

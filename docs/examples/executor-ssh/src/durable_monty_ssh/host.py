"""What runs on the other machine: one command for each hook call, one process for each job. Standard library only.

FOLDER/<job id>/envelope    the call, and its time limit
FOLDER/<job id>/lock        locked by the job's process for as long as it lives
FOLDER/<job id>/pid         that process, which leads a process group of its own
FOLDER/<job id>/outcome     appears in one step
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from durable_monty import remote


def submit(root: Path, calls: list[dict[str, Any]]) -> None:
    """Start a process for each call that has none, and never had one."""
    for call in calls:
        folder = root / call["job_id"]
        folder.mkdir(mode=0o700, exist_ok=True)
        with _lock(folder) as lock:
            if lock is None or (folder / "pid").exists():
                continue
            (folder / "envelope").write_text(json.dumps(call))
            command = [sys.executable, "-m", "durable_monty_ssh.host", str(folder), str(lock)]
            with (folder / "output").open("wb") as output:
                # It inherits the lock, so there is no moment at which nobody holds it.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=[lock],
                )
            (folder / "pid").write_text(str(process.pid))


def poll(root: Path, job_ids: list[str], wait_seconds: float) -> dict[str, Any]:
    """What is new, by job id; waits for the first."""
    ends_at = time.monotonic() + wait_seconds
    while True:
        found = {job_id: news for job_id in job_ids if (news := _news(root / job_id)) is not None}
        if found or time.monotonic() >= ends_at:
            return found
        time.sleep(0.05)


def complete(root: Path, job_ids: list[str]) -> None:
    """Forget jobs."""
    for job_id in job_ids:
        shutil.rmtree(root / job_id, ignore_errors=True)


def cancel(root: Path, job_ids: list[str]) -> dict[str, bool]:
    """Kill jobs that run; True for those that will not end by themselves any more."""
    answers = {}
    for job_id in job_ids:
        folder = root / job_id
        answers[job_id] = not folder.exists()
        with _lock(folder) as lock:
            if folder.exists() and lock is None and _say(folder, {"kind": "cancelled", "message": "it was cancelled"}):
                os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
                answers[job_id] = True
    return answers


def find(root: Path, job_ids: list[str]) -> list[str]:
    """Those jobs that are here."""
    return [job_id for job_id in job_ids if (root / job_id / "pid").exists()]


def check(_root: Path) -> dict[str, str]:
    """What this machine has."""
    return {"core": version("durable-monty-core"), "python": sys.version.partition(" ")[0]}


def run(folder: Path, lock: int) -> None:
    """Run one job, in a process of its own."""
    os.set_inheritable(lock, False)
    call = json.loads((folder / "envelope").read_text())
    if call["timeout_seconds"] is not None:
        timer = threading.Timer(call["timeout_seconds"], _time_out, [folder, call["timeout_seconds"]])
        timer.daemon = True
        timer.start()
    _say(folder, {"reply": remote.run(call["envelope"]).decode()})


def _time_out(folder: Path, seconds: float) -> None:
    if _say(folder, {"kind": "timeout", "message": f"it ran longer than {seconds} s"}):
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _say(folder: Path, outcome: dict[str, Any]) -> bool:
    """Whether this is the outcome: the first one is."""
    draft = folder / f"outcome-{os.getpid()}-{threading.get_ident()}"
    draft.write_text(json.dumps(outcome))
    try:
        os.link(draft, folder / "outcome")
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _news(folder: Path) -> Any:
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            return json.loads((folder / "outcome").read_text())
        with _lock(folder) as lock:
            if lock is None and folder.exists():
                return None
        # Its process is gone; but it may have told its outcome just now.
    return {
        "kind": "lost",
        "message": "its process on the host is gone" if folder.exists() else "the host has no such job",
    }


@contextlib.contextmanager
def _lock(folder: Path) -> Any:
    """The job's lock, or None if its process holds it, or there is no such job."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    except BlockingIOError:
        yield None
    finally:
        os.close(lock)


VERBS: dict[str, Callable[..., Any]] = {item.__name__: item for item in (submit, poll, complete, cancel, find, check)}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        request = json.load(sys.stdin)
        place = Path.home() / request["folder"]
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        json.dump(VERBS[request["verb"]](place, **request["arguments"]), sys.stdout)

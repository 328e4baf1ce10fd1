"""Running a contestant's program."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from plan import Case

_HERE = Path(__file__).parent
_RESULT = "RESULT "


def run_program(case: Case, url: str, folder: Path, peers_python: str, **environment: str) -> dict[str, Any]:
    """Run a contestant's program; what it reports, or why it failed."""
    python = peers_python if case.is_peer else sys.executable
    command = [python, str(_HERE / case.program), case.workload, "--url", url, "--folder", str(folder)]
    command += ["--n", str(case.n), "--workers", str(case.workers), "--synchronous", case.synchronous]
    if case.is_pinned:
        command.append("--pin")
    # In a group of its own: a run out of time takes along what it has started.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    try:
        output, errors = process.communicate(timeout=case.timeout_seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {case.timeout_seconds:.0f} s"}
    finally:
        # Also where this process is being ended.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    said = [line for line in output.splitlines() if line.startswith(_RESULT)]
    if process.returncode != 0 or not said:
        return {"failed": (errors.strip().splitlines() or ["it said nothing"])[-1][:200]}
    reported: dict[str, Any] = json.loads(said[-1].removeprefix(_RESULT))
    return reported

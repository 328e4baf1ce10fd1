"""Running `killed_service.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "killed_service.py"
KILLED = -signal.SIGKILL


def run_killed(url: str, action: str, pattern: str, number: int, *arguments: object) -> int:
    """Run an action that kills itself before the `number`th statement with this pattern; returns the exit code."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
    command = [sys.executable, str(SCRIPT), url, action, pattern, str(number), *map(str, arguments)]
    return subprocess.run(command, env=environment, timeout=100, check=False).returncode

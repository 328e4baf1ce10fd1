"""Processes that are killed and started again, as a supervisor of a machine does it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path


class Supervised:
    """One command that is to run all the time.

    Args:
        log: What it prints, over all its lives, goes there.

    Attributes:
        environment: Of its next life.
        program: The same.
    """

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.program = list(command)
        self.environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None: it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def ensure_running(self) -> None:
        """Start it if it has ended."""
        if self._process is None or self._process.poll() is not None:
            # Compiling every module at each start takes longer than some lives last.
            environment = {name: value for name, value in self.environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.program, env=environment, stdout=log, stderr=log, cwd=self._log.parent
                )

    def signal(self, number: int) -> bool:
        """Send it a signal; returns whether it was there to get it."""
        if self._process is None or self._process.poll() is not None:
            return False
        self._process.send_signal(number)
        return True

    def kill(self, *, itself: bool = True, children: bool = False) -> int:
        """SIGKILL it, the processes that it started, or both; returns how many were killed."""
        if self._process is None or self._process.poll() is not None:
            return 0
        victims = list(_descendants(self._process.pid)) if children else []
        if itself:
            # First, or it would see its children die.
            victims.insert(0, self._process.pid)
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if itself:
            self._process.wait()
        return len(victims)


def _descendants(parent: int) -> Iterator[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    with contextlib.suppress(OSError):
        for child in children.read_text().split():
            yield int(child)
            yield from _descendants(int(child))

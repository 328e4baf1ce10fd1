"""Archives of executions: one line of JSON for each.

A line is an object with `format` (1), `execution`, `workflow`, `calls`, `attempts` and `tags`. All but `tags`, an object
of names and values, hold the rows of the database, times in seconds since the epoch; what the codec has written
(`inputs`, `output`, `memo`, `arguments`, `outcome`, `progress`) is JSON within, not text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from durable_monty.codec import check_readable
from durable_monty.store.retention import Ended

FORMAT = 1
_ENCODED = frozenset({"inputs", "output", "memo", "arguments", "outcome", "progress", "failure", "policy", "resources"})


class Archive:
    """A file that lines are added to; one process at a time.

    Opening it cuts off a line that a killed process has not finished: its execution is still in the database.

    Raises:
        OSError: The file cannot be opened or written.
    """

    def __init__(self, path: Path | str) -> None:
        self._file: BinaryIO = Path(path).open("a+b")  # noqa: SIM115  # closed by `close`
        try:
            _lock(self._file)
            _cut_unfinished_line(self._file)
        except BaseException:
            self._file.close()
            raise

    def add(self, executions: Iterable[Ended]) -> None:
        """Append executions; they are on disk when this returns."""
        self._file.write(b"".join(_line(item) for item in executions))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file, which lets others have it."""
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _line(item: Ended) -> bytes:
    document = {
        "format": FORMAT,
        "execution": _decoded(item.execution),
        "workflow": dict(item.workflow),
        "calls": [_decoded(call) for call in item.calls],
        "attempts": [_decoded(attempt) for attempt in item.attempts],
        "tags": dict(item.tags),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _decoded(row: Mapping[str, Any]) -> dict[str, Any]:
    for value in row.values():
        # What is archived is deleted afterwards.
        if isinstance(value, str):
            check_readable(value)
    return {
        name: json.loads(value) if name in _ENCODED and isinstance(value, str) else value for name, value in row.items()
    }


def _lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:
        # Windows: nothing keeps two processes apart, whose lines are still whole.
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def _cut_unfinished_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    position = end
    while position:
        start = max(position - 65_536, 0)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            position = start + found + 1
            break
        position = start
    if position != end:
        file.truncate(position)
    file.seek(0, os.SEEK_END)

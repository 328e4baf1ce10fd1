"""From positions in the fed source to the user's own file: lines, and tracebacks as Python writes them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from durable_monty.interpreter.session import Raised

_HELPER_FILENAME = "durable_monty/flow.py"


class SourceMap:
    """Positions of one workflow.

    Args:
        source: What the sandbox runs.
        lines: For each line of it, the line in the user's file; 0 for lines that are not the user's.
        filename: What tracebacks call the user's file.
    """

    def __init__(self, source: str, lines: Sequence[int], filename: str) -> None:
        self._lines = lines
        self._filename = filename
        # Not splitlines(): a form feed or U+2028 inside a text does not end a line of Python.
        self._text = source.split("\n")
        self._starts = list(accumulate((len(line.encode()) + 1 for line in self._text), initial=0))

    def line_of(self, offset: int) -> int:
        """The line in the user's file that holds this byte offset of the source."""
        return self._user_line(bisect_right(self._starts, offset))

    def traceback(self, raised: Raised) -> str:
        """The traceback as Python would print it, with the user's file names and lines."""
        entries = ["Traceback (most recent call last):"] if raised.frames else []
        for frame in raised.frames:
            line = self._user_line(frame.line)
            if not line and frame.function_name in (None, "<module>"):
                # The call that starts a `@workflow` function is not the user's.
                continue
            filename = self._filename if line else _HELPER_FILENAME
            entries.append(f'  File "{filename}", line {line or frame.line}, in {frame.function_name or "<module>"}')
            entries += self._excerpt(frame)
        entries.append(f"{raised.type}: {raised.message}" if raised.message else raised.type)
        if "coroutine" in raised.message:
            entries.append("(a call that is not awaited is a coroutine: is an `await` missing on that line?)")
        return "\n".join(entries)

    def _user_line(self, line: int) -> int:
        return self._lines[line - 1] if 1 <= line <= len(self._lines) else 0

    def _excerpt(self, frame: object) -> list[str]:
        line: int = getattr(frame, "line", 0)
        if not 1 <= line <= len(self._text):
            return []
        text = self._text[line - 1]
        shown = text.strip()
        indent = len(text) - len(text.lstrip())
        start: int = getattr(frame, "column", 1) - 1
        end: int = getattr(frame, "end_column", start + 1) - 1
        if getattr(frame, "end_line", line) != line or end <= start:
            end = len(text.rstrip())
        carets = " " * max(start - indent, 0) + "^" * max(end - max(start, indent), 1)
        return [f"    {shown}", f"    {carets}"]

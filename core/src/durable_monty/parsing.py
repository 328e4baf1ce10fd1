"""Parsing Python in a program with threads.

CPython before 3.11.8 and 3.12.1 counts over all threads how deep it is in the tree that it makes, and gives up with a
`SystemError` if another thread has parsed at that moment (python/cpython#106905).
"""

from __future__ import annotations

import ast
import threading
from typing import Any

_TRIES = 20
_lock = threading.Lock()


def parse(text: str) -> ast.Module:
    """As `ast.parse`, whatever other threads do.

    Raises:
        SyntaxError: As `ast.parse`; likewise `ValueError`, `RecursionError` and `MemoryError`.
    """
    tree: ast.Module = _parse(text, "exec")
    return tree


def parse_expression(text: str) -> ast.Expression:
    """The same for one expression."""
    tree: ast.Expression = _parse(text, "eval")
    return tree


def _parse(text: str, mode: str) -> Any:
    for _ in range(_TRIES - 1):
        try:
            with _lock:
                return ast.parse(text, mode=mode)
        except SystemError:
            # A thread that does not know of the lock was at it as well.
            continue
    return ast.parse(text, mode=mode)

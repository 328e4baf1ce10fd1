"""What the sandbox's language has, as far as a check of source text needs to know it."""

from __future__ import annotations

import builtins

MISSING_BUILTINS = frozenset(
    [
        "bytearray",
        "memoryview",
        "dir",
        "vars",
        "globals",
        "locals",
        "callable",
        "issubclass",
        "input",
        "compile",
        "delattr",
        "super",
        "property",
        "staticmethod",
        "classmethod",
        "breakpoint",
        "help",
        "exit",
        "quit",
        "copyright",
        "credits",
        "license",
        "__import__",
        "ExceptionGroup",
        "BaseExceptionGroup",
        "ConnectionError",
        "EOFError",
        "BrokenPipeError",
        "Warning",
    ]
)
"""Builtins of Python that Monty 1.4 lacks: using one raises NameError in the workflow."""

SANDBOX_BUILTINS = frozenset(dir(builtins)) | {"__name__"}
"""Names that are not inputs, even where the sandbox lacks them."""

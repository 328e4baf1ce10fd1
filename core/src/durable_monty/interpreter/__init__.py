"""The sandbox: the only part of the project that knows `pydantic_monty`."""

from __future__ import annotations

from pydantic_monty import MontyCrashedError as SandboxCrashed
from pydantic_monty import MontyError as SandboxError

from durable_monty.interpreter.budget import DEFAULT_MAX_VALUE_BYTES, Limits, fitting, too_large
from durable_monty.interpreter.check import check_source
from durable_monty.interpreter.pool import Interpreter
from durable_monty.interpreter.session import Announced, Answer, Mark, Progress, Raised, Session, UndumpableState
from durable_monty.interpreter.sourcemap import SourceMap

__all__ = [
    "DEFAULT_MAX_VALUE_BYTES",
    "Announced",
    "Answer",
    "Interpreter",
    "Limits",
    "Mark",
    "Progress",
    "Raised",
    "SandboxCrashed",
    "SandboxError",
    "Session",
    "SourceMap",
    "UndumpableState",
    "check_source",
    "fitting",
    "too_large",
]

"""What tests of executor plug-ins and of workflows use; in the extra `durable-monty-core[testing]`.

Every name is loaded when it is first used: the functions in `durable_monty.testing.functions` run on machines that have
neither pytest nor anything else but the core.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_monty.testing.executors import ExecutorSuite

__all__ = ["ExecutorSuite"]

_MODULE_OF = {"ExecutorSuite": "durable_monty.testing.executors"}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

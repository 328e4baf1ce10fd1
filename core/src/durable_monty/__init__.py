"""Durable execution for ordinary async Python, with executors as plug-ins.

Importing this package imports nothing heavy: every name below is loaded when it is first used, so that a remote machine
needs the standard library only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_monty.aio import AsyncOrchestratorService
    from durable_monty.errors import (
        CallEnded,
        CallNotFound,
        ConfigError,
        DecodeError,
        DurableMontyError,
        EncodeError,
        ExecutionConflict,
        ExecutionEnded,
        ExecutionFailed,
        ExecutionNotEnded,
        ExecutionNotFound,
        FunctionError,
        FunctionNotFound,
        FunctionRefused,
        InputError,
        PluginError,
        Problem,
        ScheduleConflict,
        ScheduleError,
        ScheduleNotFound,
        SchemaMismatch,
        SignalRefused,
        SignatureMismatch,
        StoreError,
        StoreUnreachable,
        WorkflowCheckError,
        WorkflowError,
        WorkflowSourceError,
    )
    from durable_monty.executor import Executor
    from durable_monty.functions import CurrentCall, Retry, current_call, execute_function, function, get_function
    from durable_monty.models import (
        Accepted,
        Call,
        CallStatus,
        Capabilities,
        ExecutionStatus,
        Failure,
        Finding,
        Heartbeat,
        Job,
        Outcome,
        Refused,
    )
    from durable_monty.service import OrchestratorService
    from durable_monty.store import Store, init_db
    from durable_monty.worker import Worker
    from durable_monty.workflows import workflow

__all__ = [
    "Accepted",
    "AsyncOrchestratorService",
    "Call",
    "CallEnded",
    "CallNotFound",
    "CallStatus",
    "Capabilities",
    "ConfigError",
    "CurrentCall",
    "DecodeError",
    "DurableMontyError",
    "EncodeError",
    "ExecutionConflict",
    "ExecutionEnded",
    "ExecutionFailed",
    "ExecutionNotEnded",
    "ExecutionNotFound",
    "ExecutionStatus",
    "Executor",
    "Failure",
    "Finding",
    "FunctionError",
    "FunctionNotFound",
    "FunctionRefused",
    "Heartbeat",
    "InputError",
    "Job",
    "OrchestratorService",
    "Outcome",
    "PluginError",
    "Problem",
    "Refused",
    "Retry",
    "ScheduleConflict",
    "ScheduleError",
    "ScheduleNotFound",
    "SchemaMismatch",
    "SignalRefused",
    "SignatureMismatch",
    "Store",
    "StoreError",
    "StoreUnreachable",
    "Worker",
    "WorkflowCheckError",
    "WorkflowError",
    "WorkflowSourceError",
    "current_call",
    "execute_function",
    "function",
    "get_function",
    "init_db",
    "workflow",
]

_MODULES = {
    "durable_monty.aio": ("AsyncOrchestratorService",),
    "durable_monty.errors": (
        "CallEnded",
        "CallNotFound",
        "ConfigError",
        "DecodeError",
        "DurableMontyError",
        "EncodeError",
        "ExecutionConflict",
        "ExecutionEnded",
        "ExecutionFailed",
        "ExecutionNotEnded",
        "ExecutionNotFound",
        "FunctionError",
        "FunctionNotFound",
        "FunctionRefused",
        "InputError",
        "PluginError",
        "Problem",
        "ScheduleConflict",
        "ScheduleError",
        "ScheduleNotFound",
        "SchemaMismatch",
        "SignalRefused",
        "SignatureMismatch",
        "StoreError",
        "StoreUnreachable",
        "WorkflowCheckError",
        "WorkflowError",
        "WorkflowSourceError",
    ),
    "durable_monty.executor": ("Executor",),
    "durable_monty.functions": (
        "CurrentCall",
        "Retry",
        "current_call",
        "execute_function",
        "function",
        "get_function",
    ),
    "durable_monty.models": (
        "Accepted",
        "Call",
        "CallStatus",
        "Capabilities",
        "ExecutionStatus",
        "Failure",
        "Finding",
        "Heartbeat",
        "Job",
        "Outcome",
        "Refused",
    ),
    "durable_monty.service": ("OrchestratorService",),
    "durable_monty.store": ("Store", "init_db"),
    "durable_monty.worker": ("Worker",),
    "durable_monty.workflows": ("workflow",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

# Classes of the executor plug-ins, for scripts: by name the plug-in that has them.
_PLUGIN_OF = {"LambdaExecutor": "lambda", "LocalExecutor": "local", "ModalExecutor": "modal", "RQExecutor": "rq"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("durable-monty-core")
    if name in _PLUGIN_OF:
        return _plugin_executor(name)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def _plugin_executor(name: str) -> Any:
    plugin = _PLUGIN_OF[name]
    module = f"durable_monty_{plugin}"
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(
            f"importing {name} from durable_monty: the plug-in {plugin!r} is not installed; "
            f"run `pip install durable-monty-{plugin}`"
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_PLUGIN_OF])

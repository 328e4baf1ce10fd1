"""The AWS Lambda executor of durable-monty: host functions run by Lambda functions.

`durable_monty_lambda.handler` is all that a Lambda function needs: importing this package imports the standard library
and the remote side of the core, and neither boto3 nor pydantic before an executor is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durable_monty_lambda.remote import handler

if TYPE_CHECKING:
    from durable_monty_lambda.executor import Executor, LambdaExecutor
    from durable_monty_lambda.remote_durable import durable_handler
    from durable_monty_lambda.settings import LambdaSettings

__all__ = ["Executor", "LambdaExecutor", "LambdaSettings", "durable_handler", "handler"]

_MODULES = {
    "Executor": "executor",
    "LambdaExecutor": "executor",
    "LambdaSettings": "settings",
    "durable_handler": "remote_durable",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)

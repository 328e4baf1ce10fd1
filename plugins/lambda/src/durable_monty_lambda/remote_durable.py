"""What a Lambda durable function runs; needs `aws-durable-execution-sdk-python` in its package."""

from __future__ import annotations

from typing import Any

from aws_durable_execution_sdk_python.context import DurableContext
from aws_durable_execution_sdk_python.execution import durable_execution

from durable_monty_lambda.remote import handler


@durable_execution
def durable_handler(event: Any, context: DurableContext) -> dict[str, Any]:
    """Run the call in `event`; the handler string is `durable_monty_lambda.durable_handler`.

    The durable execution has no steps of its own: what Lambda adds is a start that is idempotent by name, an end that
    can be asked for, and a result that can be read by ARN.
    """
    return handler(event, context)

"""Functions of the user's that the worker itself calls: `when=` of a retry and `key=` of a limit.

They are known by name only, because a policy outlives the process that declared it. What a function's own decorator
names is taken from that function, which has to be registered here, so that whoever can write to the database cannot
choose what the worker runs. What the configuration or one call names has to be registered itself, or allowed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from durable_monty import functions
from durable_monty.errors import FunctionError
from durable_monty.functions import Function, FunctionOptions, stored_name
from durable_monty.models import Failure

log = logging.getLogger(__name__)


def is_wanted(function: str, when: str | None, failure: Failure) -> bool:
    """Whether a retry's predicate agrees; one that cannot be found or raises does not."""
    if when is None:
        return True
    try:
        return bool(
            find_predicate(function, when, lambda own: own.retry.when if own.retry is not None else None)(failure)
        )
    except Exception as error:
        log.warning(
            "the predicate of a retry cannot be asked, no attempt follows: %s",
            error,
            extra={"function": function, "when": when},
            exc_info=error,
        )
        return False


def find_predicate(
    function: str, name: str, own: Callable[[FunctionOptions], Callable[..., Any] | str | None]
) -> Callable[..., Any]:
    """The predicate or key function of this name that belongs to a host function.

    Args:
        own: Takes it out of what the host function's decorator says. By its name alone it could not be told from
            another: every lambda of a decorator has the same.

    Raises:
        FunctionError: The host function is not registered here and cannot be, or the name is neither its own nor
            registered.
    """
    try:
        options = functions.resolve(function).options
    except FunctionError:
        if "<" in name:
            raise
        options = FunctionOptions()
    declared = own(options)
    if declared is not None and stored_name(declared) == name:
        return functions.get_function(declared) if isinstance(declared, str) else declared
    if "<" in name:
        raise FunctionError(
            f"looking for {name!r} of the function {function!r}: it has no name of its own, and the function does not "
            "have it here; define it with `def`, or start a worker with the code that the workflow was started with"
        )
    found = functions.resolve(name)
    return found.__wrapped__ if isinstance(found, Function) else found

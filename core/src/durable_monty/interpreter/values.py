"""What crosses the sandbox's border, made fit for the log and back.

Out of the sandbox come proxies for class instances, and texts that stand for things which cannot cross, among them
calls that were not awaited. Into it go values, and exceptions by a type that Monty knows and one text.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic_monty import ExcType, MontyClassProxy, MontyClassTypeProxy, MontyStdTypeProxy

from durable_monty.codec import MAX_DEPTH
from durable_monty.models import Failure

_UNAWAITED = re.compile(r"<coroutine external_future\((\d+)\)>")
_KNOWN_TYPES: frozenset[str] = frozenset(get_args(ExcType))
# Monty knows these by their qualified names only.
_QUALIFIED = {name.rpartition(".")[2]: name for name in _KNOWN_TYPES if "." in name}
_NOT_CATCHABLE = frozenset({"BaseException", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"})


# How Monty writes what cannot leave the sandbox; a text that looks like this by chance is refused as well.
_ONLY_INSIDE = re.compile(
    r"<function '[^']*' at 0x[0-9a-f]+>|<class '[\w.]+'>|<module '[\w.]+'>|<bound method>|<[\w. ]+ object\b.*>"
    r"|dict_(?:keys|values|items)\(\[.*\]\)",
    re.DOTALL,
)
_ONLY_INSIDE_BEGINS = ("<", "dict_")


class SandboxObject:
    """Stands for a class, function, module or iterator of the sandbox; no codec carries it."""

    def __repr__(self) -> str:
        # Not the usual one: errors that the workflow sees may quote it, and are not to tell an address of this process.
        return "<an object of the sandbox>"


class UnawaitedCall(Exception):
    """A call that was not awaited was used as a value.

    Attributes:
        call_id: The call that stands where a value should be.
    """

    def __init__(self, call_id: int) -> None:
        self.call_id = call_id
        super().__init__(f"call {call_id} was not awaited")


def from_sandbox(value: Any, depth: int = 0) -> Any:
    """The value with class instances as dicts of their attributes.

    What is nested more deeply than the codec carries is left as it is, for the codec to refuse by its path.

    Raises:
        UnawaitedCall: It is or holds a call that was not awaited.
    """
    kind = type(value)
    if kind is str:
        return _text(value) if value.startswith(_ONLY_INSIDE_BEGINS) else value
    if depth > MAX_DEPTH:
        return value
    if kind is list:
        return [from_sandbox(item, depth + 1) for item in value]
    if kind in (tuple, set, frozenset):
        return kind(from_sandbox(item, depth + 1) for item in value)
    if kind is dict:
        return {from_sandbox(key, depth + 1): from_sandbox(item, depth + 1) for key, item in value.items()}
    if kind is MontyClassProxy:
        return {name: from_sandbox(item, depth + 1) for name, item in value.attributes.items()}
    if kind in (MontyClassTypeProxy, MontyStdTypeProxy):
        return SandboxObject()
    return value


def unawaited(value: Any) -> int | None:
    """The call that was not awaited which a value from the sandbox stands for; None if it is something else."""
    match = _UNAWAITED.fullmatch(value) if isinstance(value, str) else None
    return int(match[1]) if match else None


def _text(value: str) -> Any:
    call_id = unawaited(value)
    if call_id is not None:
        raise UnawaitedCall(call_id)
    return SandboxObject() if _ONLY_INSIDE.fullmatch(value) else value


def to_answer(failure: Failure) -> dict[str, Any]:
    """What Monty takes to raise `failure` at the `await`.

    A failure of the function is raised by the nearest type that the sandbox knows; of the rest, `timeout` is a
    `TimeoutError`, `cancelled` a `BaseException` that `except Exception` does not see, everything else a
    `RuntimeError` whose text begins with the kind.
    """
    if failure.kind == "timeout":
        return {"exc_type": "TimeoutError", "message": failure.message}
    if failure.kind == "cancelled":
        return {"exc_type": "BaseException", "message": failure.message}
    if failure.kind != "user":
        return {"exc_type": "RuntimeError", "message": f"{failure.kind}: {failure.message}"}
    message = f"{failure.type}: {failure.message}" if failure.message else failure.type
    if failure.type in _NOT_CATCHABLE or (failure.bases and "Exception" not in (failure.type, *failure.bases)):
        # `SystemExit` of a host function ends that function, and must not look like a cancellation of the workflow.
        return {"exc_type": "RuntimeError", "message": message}
    if failure.type in _KNOWN_TYPES:
        return {"exc_type": failure.type, "message": failure.message}
    if failure.type in _QUALIFIED:
        return {"exc_type": _QUALIFIED[failure.type], "message": failure.message}
    known = next((base for base in failure.bases if base in _KNOWN_TYPES), "Exception")
    return {"exc_type": known, "message": message}

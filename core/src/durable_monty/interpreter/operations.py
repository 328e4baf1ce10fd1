"""The helpers of `durable_monty.flow` that the engine serves: what a call of each asks for.

They arrive as calls of host functions under the path `durable_monty.flow.<name>`. Most become calls of the log, of a
kind of their own; the marks that keep track of races (`_here`, `_open`, `_enter`, `_close`) are answered at once and
leave no trace, because a replay asks for them again.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durable_monty.records import CallKind
from durable_monty.texts import ID_RULE, is_id

FLOW = "durable_monty.flow"
MARKS = frozenset({"_here", "_open", "_enter", "_close", "_box", "_put"})
MAX_NAME_CHARACTERS = 200
MAX_SCOPE_CHARACTERS = 10_000
"""Longest path of races within each other: a thousand of them, for call ids of nine digits."""
MAX_SECONDS = 100 * 366 * 86400.0
"""No durable wait is longer: a hundred years."""

# Least and most arguments of each mark.
_MARK_ARGUMENTS = {"_here": (0, 1), "_open": (2, 2), "_enter": (1, 1), "_close": (1, 1), "_box": (0, 0), "_put": (1, 1)}
# What `durable_monty.interpreter.scopes` writes, and the number of a channel.
_SUBJECT = re.compile(r"[0-9/!?]*")


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a helper.

    Attributes:
        target: What it is about: the name of a signal, key, stream or workflow.
        is_answered: Whether its answer is None and known at once.
        blocking: Whether it is called without `await`.
        seconds: How long it waits at most; None: for ever.
    """

    kind: CallKind
    target: str
    is_answered: bool = False
    blocking: bool = False
    seconds: float | None = None


def read(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Operation:
    """What a call of the helper `name` asks for.

    Raises:
        TypeError: It does not take these arguments, or one is of the wrong type.
        ValueError: An argument is out of its range.
    """
    signature, make = _OPERATIONS[name]
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}") from None
    bound.apply_defaults()
    return make(**bound.arguments)


@dataclass(frozen=True, slots=True)
class MarkCall:
    """One call of a mark.

    Attributes:
        subject: The scope or channel that it names; empty if it names none.
        awaitables: What is to run there; None: it was not said.
    """

    subject: str = ""
    awaitables: Sequence[Any] | None = None


def read_mark(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> MarkCall:
    """What a call of the mark `name` says. The helpers' own calls are always right; the workflow can make others.

    Raises:
        TypeError: It does not take these arguments.
        ValueError: What it names is no scope or channel, or races are within each other too deeply.
    """
    least, most = _MARK_ARGUMENTS[name]
    if kwargs or not least <= len(args) <= most:
        raise TypeError(f"{name}() is called by the helpers of {FLOW} only, and not like this")
    if name in ("_here", "_box"):
        return MarkCall(awaitables=_awaitables(name, args[0]) if args else None)
    subject = args[0]
    if type(subject) is not str or not _SUBJECT.fullmatch(subject):
        raise ValueError(f"{name}() got {subject!r:.100}, which it has not handed out; use the helpers of {FLOW}")
    if len(subject) > MAX_SCOPE_CHARACTERS:
        raise ValueError(f"{name}(): races are within each other too deeply; start them one after the other")
    return MarkCall(subject, _awaitables(name, args[1]) if most == 2 else None)


def _awaitables(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name}() got {value!r:.100} for a sequence of awaitables; use the helpers of {FLOW}")
    return value


def _signal(name: Any, timeout_seconds: Any, type: Any) -> Operation:  # noqa: A002, ARG001
    return Operation(
        CallKind.SIGNAL, _name("signal() name", name), seconds=_seconds("signal() timeout_seconds", timeout_seconds)
    )


def _send_signal(execution_id: Any, name: Any, payload: Any) -> Operation:  # noqa: ARG001
    _name("send_signal() execution_id", execution_id)
    return Operation(CallKind.SEND, _name("send_signal() name", name))


def _child(workflow: Any, inputs: Any, execution_id: Any) -> Operation:
    return Operation(CallKind.CHILD, _workflow("child()", workflow, inputs, execution_id))


def _start_child(workflow: Any, inputs: Any, execution_id: Any, parent_close: Any) -> Operation:
    if parent_close not in ("cancel", "abandon"):
        raise ValueError(f"start_child() parent_close is {parent_close!r}; it must be 'cancel' or 'abandon'")
    return Operation(CallKind.START, _workflow("start_child()", workflow, inputs, execution_id))


def _publish(key: Any, value: Any) -> Operation:  # noqa: ARG001
    return Operation(CallKind.PUBLISH, _name("publish() key", key), is_answered=True, blocking=True)


def _emit(stream: Any, value: Any) -> Operation:  # noqa: ARG001
    return Operation(CallKind.EMIT, _name("emit() stream", stream), is_answered=True, blocking=True)


def _next(box: Any) -> Operation:
    if type(box) is not str or not _SUBJECT.fullmatch(box) or len(box) > MAX_NAME_CHARACTERS:
        raise ValueError(f"_next() got {box!r:.100}, which is no channel; use the helpers of {FLOW}")
    return Operation(CallKind.CHANNEL, box)


def _name(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is {value!r}; it must be a text")
    if not 0 < len(value) <= MAX_NAME_CHARACTERS:
        raise ValueError(f"{what} has {len(value)} characters; it must have 1 to {MAX_NAME_CHARACTERS}")
    if "\0" in value:
        # PostgreSQL has no text with a null character, and what is refused here is refused on every database.
        raise ValueError(f"{what} is {value!r}; it must not have a null character")
    return value


def _seconds(what: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is {value!r}; it must be a number of seconds")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{what} is {value!r}; it must be a number of seconds from 0 on")
    return min(float(value), MAX_SECONDS)


def _workflow(what: str, workflow: Any, inputs: Any, execution_id: Any) -> str:
    if inputs is not None and not isinstance(inputs, dict):
        raise TypeError(f"{what} inputs is {inputs!r:.100}; it must be a dictionary of arguments by name")
    if execution_id is not None:
        _name(f"{what} execution_id", execution_id)
        if not is_id(execution_id):
            raise ValueError(f"{what} execution_id is {execution_id!r}; an id is {ID_RULE}")
    return _name(f"{what} workflow", workflow)


def _signature(make: Callable[..., Operation], **defaults: Any) -> inspect.Signature:
    """The helper's signature in the sandbox: the parameters of `make`, with their defaults.

    A parameter that `make` does not look at is carried to the store as it is.
    """
    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=defaults.get(name, inspect.Parameter.empty)
        )
        for name in inspect.signature(make).parameters
    ]
    return inspect.Signature(parameters)


_OPERATIONS: dict[str, tuple[inspect.Signature, Callable[..., Operation]]] = {
    "signal": (_signature(_signal, timeout_seconds=None, type=None), _signal),
    "send_signal": (_signature(_send_signal, payload=None), _send_signal),
    "child": (_signature(_child, inputs=None, execution_id=None), _child),
    "start_child": (_signature(_start_child, inputs=None, execution_id=None, parent_close="cancel"), _start_child),
    "publish": (_signature(_publish), _publish),
    "emit": (_signature(_emit), _emit),
    "_next": (_signature(_next), _next),
}

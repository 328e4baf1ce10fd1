"""What one call asks for beyond what its function says: `durable_monty.flow.options(fn, ...)(...)`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from durable_monty.functions import FunctionOptions, Retry

OPTIONS = "_options"
"""The keyword argument by which a call inside the sandbox carries its options."""

NAMES = tuple(field.name for field in fields(FunctionOptions) if field.name != "blocking")
_MAX_NAME_CHARACTERS = 200
_MAX_WHOLE = 2**31 - 1
_RETRY_NAMES = tuple(field.name for field in fields(Retry))
_STORED_NAMES = {"idempotent": "is_idempotent", "key": "key_value"}


def call_overrides(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one call as they are stored with it: like `CallPolicy.to_dict`, and only what was given.

    Args:
        given: Fields of `FunctionOptions` but `blocking`; `retry` may be a mapping of the fields of `Retry`, and `key` is
            the key itself.

    Raises:
        ValueError: A field is unknown, or out of its range.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"the options of a call are {given!r:.100}; write options(fn, ...)(...)")
    _refuse_unknown("options()", given, NAMES)
    values = dict(given)
    _refuse_unstorable(values)
    if isinstance(values.get("retry"), Mapping):
        values["retry"] = _retry(values["retry"])
    key = values.pop("key", None)
    if key is not None and not isinstance(key, str):
        raise ValueError(f"options() key is {key!r:.100}; it must be the key of this call, as text")
    try:
        policy = FunctionOptions(**values).to_policy()
    except ValueError as error:
        raise ValueError(str(error).replace("@function", "options()", 1)) from None
    stored = {**policy.to_dict(), "key_value": key}
    names = [_STORED_NAMES.get(name, name) for name in given]
    return {name: stored[name] if name in stored else getattr(policy, name) for name in names}


def _retry(given: Mapping[str, Any]) -> Retry:
    _refuse_unknown("Retry", given, _RETRY_NAMES)
    values = dict(given)
    if "on" in values:
        on = values["on"]
        items = on if isinstance(on, tuple | list) else (on,)
        # A type of the sandbox comes as its qualified name.
        values["on"] = tuple(item.rpartition(".")[2] if isinstance(item, str) else item for item in items)
    return Retry(**values)


def _refuse_unstorable(values: Mapping[str, Any]) -> None:
    """Refuse what a workflow can write and the store has no room for."""
    for name in ("executor", "queue", "key"):
        value = values.get(name)
        if isinstance(value, str) and ("\0" in value or len(value) > _MAX_NAME_CHARACTERS):
            raise ValueError(
                f"options() {name} is {value!r:.100}; it must have at most {_MAX_NAME_CHARACTERS} characters, none of "
                "them null"
            )
    for name in ("concurrency", "retry"):
        numbers = values[name].values() if isinstance(values.get(name), Mapping) else (values.get(name),)
        if any(isinstance(number, int) and abs(number) > _MAX_WHOLE for number in numbers):
            raise ValueError(
                f"options() {name} has a number beyond {_MAX_WHOLE}; leave it out, if it is to mean no limit"
            )
    try:
        json.dumps(values.get("resources"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"options() resources is no JSON: {error}") from None


def _refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ValueError(f"{what} has no {name!r}; {hint}")

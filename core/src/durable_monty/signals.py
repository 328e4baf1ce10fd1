"""Whether a signal's payload is of the type that a workflow waits for."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

from durable_monty import codec
from durable_monty.errors import SignalRefused

_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bytes": (bytes,),
    "list": (list,),
    "tuple": (tuple,),
    "dict": (dict,),
    "set": (set,),
    "frozenset": (frozenset,),
    "datetime": (dt.datetime,),
    "date": (dt.date,),
    "time": (dt.time,),
    "timedelta": (dt.timedelta,),
    "Decimal": (decimal.Decimal,),
}


def check_payload(name: str, payload: Any, arguments: str, line: int) -> None:
    """Check a payload against what the call that would get it wants.

    A class that the workflow defines itself is made from a dictionary of its fields.

    Args:
        arguments: The call's, as they are stored.
        line: Where it stands; 0 if unknown.

    Raises:
        SignalRefused: The payload is of another type.
    """
    wanted = codec.loads(arguments)[0][2]
    if wanted is None:
        return
    accepted = _TYPES.get(wanted, (dict,))
    is_bool = isinstance(payload, bool) and wanted != "bool"
    if isinstance(payload, accepted) and not is_bool:
        return
    where = f" at line {line}" if line else ""
    form = wanted if wanted in _TYPES else f"a dictionary with the fields of {wanted}"
    raise SignalRefused(
        f"sending signal {name!r}: the workflow waits for it{where} with {form}, the payload is {payload!r:.100} of type "
        f"{type(payload).__name__}; nothing was sent"
    )

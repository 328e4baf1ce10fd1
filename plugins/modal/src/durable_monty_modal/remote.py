"""What runs in a container at Modal: the standard library and the remote side of the core.

`run` is deployed as it stands here, at module level, so that a container needs this module and the user's functions,
not the module that the app was deployed from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from durable_monty import remote

Text = TypeVar("Text", str, bytes)

_PROBE = '{"durable_monty_probe":'


def run(envelope: Text) -> Text:
    """Execute the call in `envelope` and return its reply, as text or bytes like the envelope.

    Nothing that the function does is raised here: Modal would pickle the exception, and a `TimeoutError` of the user's
    would look like "not ready" to the client. A probe is answered instead of being run.
    """
    if isinstance(envelope, str):
        return _answer(envelope) if envelope.startswith(_PROBE) else remote.run(envelope).decode()
    return _answer(envelope.decode()).encode() if envelope.startswith(_PROBE.encode()) else remote.run(envelope)


def make_probe(functions: Sequence[str]) -> str:
    """A question for `run`: its version, and which of these functions cannot run there."""
    return f"{_PROBE}{json.dumps(list(functions))}}}"


def _answer(probe: str) -> str:
    from durable_monty.errors import FunctionError
    from durable_monty.functions import resolve

    missing: dict[str, str] = {}
    for path in json.loads(probe)["durable_monty_probe"]:
        try:
            resolve(path)
        except FunctionError as error:
            missing[path] = str(error)
    answer: dict[str, Any] = {
        "version": core_version(),
        "missing": missing,
        "is_signed": remote.signing_key() is not None,
    }
    return json.dumps(answer)


def core_version() -> str:
    """The version of the core here; a container that has its files without its metadata says what they came with."""
    import os
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("durable-monty-core")
    except PackageNotFoundError:
        return os.environ.get(VERSION_VARIABLE, "unknown")


VERSION_VARIABLE = "DURABLE_MONTY_CORE_VERSION"
"""Set in the image: the version of the core that its files were taken from."""

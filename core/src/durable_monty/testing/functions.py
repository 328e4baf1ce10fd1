"""The functions that the conformance kit runs through an executor. Standard library only.

They are importable wherever the core is installed, so they must be harmless to whoever calls them: what they note, they
note in one folder of their own below the system's folder for temporary files.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from durable_monty.functions import current_call, function

PREFIX = f"{__name__}."
"""How the dotted paths of these functions begin; for allow-lists."""


class KitError(LookupError):
    """An exception type of a user's own."""


@function
def echo(value: Any) -> Any:
    """The value."""
    return value


@function
async def echo_async(value: Any) -> Any:
    """The value, after a turn of the event loop."""
    await asyncio.sleep(0)
    return value


@function
def sleep(seconds: float, value: Any = None) -> Any:
    """The value, after a while."""
    time.sleep(seconds)
    return value


@function
def fail(message: str) -> None:
    """Raise a `ValueError`."""
    raise ValueError(message)


@function
def fail_in_own_way(message: str) -> None:
    """Raise an exception of a type that only this module has."""
    raise KitError(message)


@function
def unencodable() -> dict[str, Any]:
    """A value that cannot be carried, in the second item of a list."""
    return {"items": [1, object()]}


@function
def text_of(characters: int) -> str:
    """A text of that many characters."""
    return "x" * characters


@function
def leave() -> None:
    """`sys.exit`: what a function must not do, and does."""
    sys.exit(3)


@function
def die() -> None:
    """End the process without a word. Not for executors whose functions run in the worker."""
    os._exit(3)


@function
def about_me() -> dict[str, Any]:
    """What `current_call()` says."""
    call = current_call()
    return {"job_id": call.job_id, "attempt": call.attempt, "idempotency_key": call.idempotency_key}


@function
def note_run(key: str) -> str:
    """Note that it runs; a text that no other run returns."""
    _note(key, "run")
    return uuid.uuid4().hex


@function
def note_begin_and_end(key: str, seconds: float) -> None:
    """Note when it begins and, after a while, when it ends."""
    _note(key, "begin")
    time.sleep(seconds)
    _note(key, "end")


@function
def notes(key: str) -> list[str]:
    """What was noted under a key, on the machine that this runs on."""
    try:
        return _file(key).read_text().split()
    except FileNotFoundError:
        return []


def _note(key: str, word: str) -> None:
    file = os.open(_file(key), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{word}\n".encode())
    finally:
        os.close(file)


def _file(key: str) -> Path:
    """Named by a digest: no key leads out of the folder."""
    folder = Path(tempfile.gettempdir()) / f"durable-monty-kit-{os.getuid() if hasattr(os, 'getuid') else 0}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / hashlib.sha256(key.encode()).hexdigest()[:32]

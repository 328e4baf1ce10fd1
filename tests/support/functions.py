"""Host functions that tests call, also from other processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from durable_monty import Retry, current_call, function


@function
def add(a: int, b: int) -> int:
    return a + b


@function
def identity(value: object) -> object:
    return value


@function
def fail(kind: str, message: str) -> None:
    raise {"ValueError": ValueError, "KeyError": KeyError, "OSError": OSError}[kind](message)


class OutOfStock(LookupError):
    pass


@function
def out_of_stock() -> None:
    raise OutOfStock("no more apples")


@function
async def nap(seconds: float, value: int = 0) -> int:
    await asyncio.sleep(seconds)
    return value


@function
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@function(blocking=True)
def add_now(a: int, b: int) -> int:
    return a + b


@function
def note(path: str, text: str) -> str:
    """Append a line to a file and return the line."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{text}\n".encode())
    finally:
        os.close(file)
    return text


@function
def attempt_number() -> int:
    return current_call().attempt


@function
def trace_context() -> str | None:
    return current_call().trace_context


@function
def hold(begun: str, release: str) -> int:
    """Note the attempt in one file, wait until the other is there, and return the attempt."""
    attempt = current_call().attempt
    note.__wrapped__(begun, str(attempt))
    while not Path(release).exists():
        time.sleep(0.01)
    return attempt


@function(retry=Retry(attempts=3, first_delay_seconds=0.01))
def fail_until_third() -> int:
    attempt = current_call().attempt
    if attempt < 3:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@function(timeout_seconds=0.2)
def too_slow() -> None:
    time.sleep(5)


@function
def process_id() -> int:
    return os.getpid()


@function
def exit_process() -> None:
    os._exit(3)


@function
def kill_itself() -> None:
    """As the kernel does it when memory has run out."""
    os.kill(os.getpid(), signal.SIGKILL)


@function
def kill_itself_once(path: str) -> int:
    """Take the process down at the first attempt."""
    attempt = current_call().attempt
    note.__wrapped__(path, str(attempt))
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


@function
def unencodable() -> object:
    return {"a": [object()]}


@function
def text(size: int) -> str:
    """So many characters."""
    return "x" * size


@function
def slowly(path: str, text: str | int) -> str:
    """Append a line to a file and take some time over it."""
    note.__wrapped__(path, str(text))
    time.sleep(0.5)
    return str(text)


@function(retry=Retry(attempts=2, first_delay_seconds=0.01))
def always_fails_once() -> int:
    if current_call().attempt == 1:
        raise ValueError("the first attempt fails")
    return current_call().attempt


@function
def must_exist(path: str) -> str:
    if not Path(path).exists():
        raise FileNotFoundError(path)
    return path

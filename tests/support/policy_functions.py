"""Host functions with policies, for tests; what they do is noted in files, so that other processes see it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from durable_monty import Retry, current_call, function


def note(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{text}\n".encode())
    finally:
        os.close(file)


def lines(path: str | Path) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def hang_until(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def is_transient(failure) -> bool:
    return "again" in failure.message


@function(retry=Retry(attempts=5, first_delay_seconds=0.01, when=is_transient))
def choosy(path: str, messages: list[str]) -> int:
    attempt = current_call().attempt
    note(path, str(attempt))
    if attempt <= len(messages):
        raise ConnectionError(messages[attempt - 1])
    return attempt


@function(retry=Retry(attempts=5, first_delay_seconds=0.01, when=lambda failure: failure.message == "again"))
def choosy_lambda(messages: list[str]) -> int:
    attempt = current_call().attempt
    if attempt <= len(messages):
        raise ConnectionError(messages[attempt - 1])
    return attempt


@function(retry=Retry(attempts=5, first_delay_seconds=0.01, when="support.policy_functions.is_nowhere"))
def unpredictable(path: str) -> None:
    note(path, "ran")
    raise ConnectionError("again")


@function(retry=Retry(attempts=1000, first_delay_seconds=0.05, factor=1), total_timeout_seconds=0.4)
def hopeless(path: str) -> None:
    note(path, str(current_call().attempt))
    raise ConnectionError("no")


@function(total_timeout_seconds=0.5)
def endless(release: str) -> None:
    hang_until(release)


@function(timeout_seconds=0.5, retry=Retry(attempts=3, first_delay_seconds=0.01))
def slow_at_first(path: str, release: str) -> int:
    attempt = current_call().attempt
    note(path, str(attempt))
    if attempt == 1:
        hang_until(release)
    return attempt


@function(heartbeat_seconds=1)
def climbing(path: str, release: str) -> list[int]:
    """Reports its steps; the first attempt falls silent after the third."""
    call = current_call()
    start = call.progress or 0
    note(path, f"{call.attempt} from {start}")
    for step in range(start + 1, 4):
        call.heartbeat(step)
    if call.attempt == 1:
        hang_until(release)
    return [call.attempt, start]


@function(heartbeat_seconds=1)
async def climbing_async(path: str) -> list[int]:
    call = current_call()
    note(path, f"{call.attempt} from {call.progress}")
    call.heartbeat({"done": 3})
    if call.attempt == 1:
        await asyncio.sleep(60)
    return [call.attempt, call.progress["done"] if call.progress else 0]


@function(heartbeat_seconds=2)
def steady(steps: int) -> int:
    """Runs for longer than it may be silent, and is not."""
    for step in range(steps):
        current_call().heartbeat(step)
        time.sleep(0.2)
    return current_call().attempt


@function(heartbeat_seconds=0.3, retry=Retry(attempts=2, first_delay_seconds=0.01))
def silent(release: str) -> None:
    hang_until(release)


@function(retry=Retry(attempts=2, first_delay_seconds=0.01))
def fails_with_progress() -> int:
    call = current_call()
    if call.progress is None:
        for step in range(50):
            call.heartbeat(step)
        raise ConnectionError("broken off")
    return call.progress


@function
def report_and_hang(path: str, release: str) -> object:
    """Reports a progress, and hangs in its first attempt."""
    call = current_call()
    note(path, f"{call.attempt} from {call.progress}")
    if call.attempt == 1:
        call.heartbeat({"page": 7})
        hang_until(release)
    return call.progress


@function(concurrency=2)
def two_at_a_time(path: str, name: str) -> str:
    """Notes its beginning and its end."""
    note(path, f"+{name}")
    time.sleep(0.05)
    note(path, f"-{name}")
    return name


class Order:
    pass


@function(concurrency=1, key=lambda order: order["customer"])
def one_per_customer(order: dict) -> str:
    note(order["path"], f"+{order['customer']}")
    time.sleep(0.05)
    note(order["path"], f"-{order['customer']}")
    return order["customer"]


@function(rate="20/s")
def paced(path: str) -> float:
    now = time.time()
    note(path, str(now))
    return now


@function(concurrency=1)
def ordered(path: str, name: str) -> str:
    note(path, name)
    return name


@function(concurrency=1, key=lambda number: 1 / number)
def keyless(number: int) -> int:
    return number


def add_line(name: str) -> None:
    from sqlalchemy import text

    current_call().connection.execute(text("INSERT INTO ledger (name) VALUES (:name)"), {"name": name})


@function
def write_once(name: str) -> str:
    add_line(name)
    return name


@function
async def write_once_async(name: str) -> str:
    add_line(name)
    await asyncio.sleep(0)
    return name


@function
def write_and_fail(name: str) -> None:
    add_line(name)
    raise ValueError(name)


@function
def write_and_commit(name: str) -> None:
    add_line(name)
    current_call().connection.commit()


@function(retry=Retry(attempts=5, first_delay_seconds=0.01), timeout_seconds=0.5)
def write_late(name: str, path: str, release: str) -> str:
    """The first attempt takes too long, and ends after the second."""
    call = current_call()
    if call.attempt == 1:
        from sqlalchemy import text

        call.connection.execute(text("SELECT 1"))
        hang_until(release)
        try:
            call.connection.execute(text("INSERT INTO ledger (name) VALUES ('late')"))
        finally:
            note(path, "late")
        return "late"
    return name


@function
def kill_around_commit(name: str, where: str, path: str) -> str:
    """Ends its process right before, or right after, its transaction is committed, the first time it runs."""
    import signal

    from sqlalchemy import event

    add_line(name)
    if Path(path).exists():
        return name
    note(path, "was here")
    connection = current_call().connection
    if where == "before":
        event.listen(connection.engine, "commit", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    else:
        raw = connection.connection.driver_connection
        kill_after(raw, connection)
    return name


def kill_after(raw, connection) -> None:
    """The process ends when the driver has committed and before anybody is told."""
    import signal

    dialect = connection.dialect
    commit = dialect.do_commit

    def commit_and_die(dbapi_connection) -> None:
        commit(dbapi_connection)
        if getattr(dbapi_connection, "driver_connection", dbapi_connection) is raw:
            os.kill(os.getpid(), signal.SIGKILL)

    dialect.do_commit = commit_and_die

"""Workflows that start each other, for tests."""

from __future__ import annotations

from asyncio import gather, sleep
from typing import Any, Literal

from durable_monty import workflow
from durable_monty.flow import child, emit, publish, race, send_signal, signal, start_child
from support.functions import add, fail, identity, nap


@workflow
async def doubled(value: int, extra: int = 0) -> int:
    return await add(value, value) + extra


@workflow
async def failing_child(text: str) -> None:
    await fail("ValueError", text)


@workflow
async def patient(seconds: float = 3600) -> str:
    try:
        await nap(seconds)
    finally:
        publish("state", "cleaned up")
        await identity("cleanup")
    return "done"


@workflow
async def family(values: list[int]) -> list[int]:
    return await gather(*[child(doubled, inputs={"value": value}) for value in values])


@workflow
async def catching_parent(text: str) -> str:
    try:
        await child(failing_child, inputs={"text": text})
    except ValueError as error:
        return f"caught {error}"
    return "nothing"


@workflow
async def failing_parent(text: str) -> None:
    await child(failing_child, inputs={"text": text})


@workflow
async def leaving(parent_close: Literal["cancel", "abandon"]) -> str:
    found: str = await start_child(patient, execution_id="left", parent_close=parent_close)
    await signal("go")
    return found


@workflow
async def impatient() -> int:
    won, _ = await race(sleep(0.05), child(patient, execution_id="slow"))
    return won


@workflow
async def waiting_parent() -> Any:
    return await child(patient, execution_id="inner")


@workflow
async def countdown(n: int) -> list[int]:
    if n == 0:
        return [0]
    return [n, *await child("countdown", inputs={"n": n - 1})]


@workflow
async def ping(partner: str) -> str:
    await send_signal(partner, "ping", {"from": "ping"})
    return await signal("pong", timeout_seconds=60)


@workflow
async def pong() -> Any:
    got = await signal("ping", timeout_seconds=60)
    for number in range(3):
        emit("log", number)
        publish("last", number)
    return got

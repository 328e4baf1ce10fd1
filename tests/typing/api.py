"""What a type checker sees of the public interface; checked by `nox -s types`, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

from durable_monty import (
    AsyncOrchestratorService,
    Call,
    Executor,
    Failure,
    OrchestratorService,
    Retry,
    Worker,
    current_call,
    flow,
    function,
    init_db,
    workflow,
)
from durable_monty.observerspecs import CallSettled, hookimpl
from durable_monty.testing import MadeCall, WorkflowTest
from durable_monty.waiting import Wait
from durable_monty_otel import traced


@function
def add(a: int, b: int) -> int:
    return a + b


@function(retry=Retry(attempts=3), timeout_seconds=5, executor="cpu")
async def fetch(url: str) -> bytes:
    return url.encode()


@workflow
async def total(start: int, urls: list[str]) -> int:
    pages = await flow.map(fetch, urls, limit=4)
    index, _ = await flow.race(fetch(urls[0]), add(1, 2))
    assert_type(index, int)
    assert_type(await flow.settle(fetch(urls[0])), list[Any])
    result: int = await add(start, len(pages))
    again: int = await flow.options(add, timeout_seconds=5, retry={"attempts": 2})(start, 1)
    await flow.options(add)("1", 2)  # type: ignore[arg-type]  # the arguments are checked as without options
    flow.options(add, timeout=5)  # type: ignore[call-arg]  # there is no such option
    return result + again


async def unit_test() -> None:
    assert_type(await total(1, ["a"]), int)
    await total("1", [])  # type: ignore[arg-type]  # the parameters of a workflow are checked


function(retries=3)  # type: ignore[call-overload]  # there is no such option


@function(heartbeat_seconds=5, concurrency=2, rate="5/s", key=lambda: "k", total_timeout_seconds=60)
def about_itself() -> str:
    current_call().heartbeat({"done": 1})
    assert_type(current_call().attempt, int)
    assert_type(current_call().trace_context, str | None)
    return current_call().idempotency_key


class Mine(Executor):
    def submit_call(self, call: Call) -> None:
        assert_type(call.job_id, str)

    def get_stats(self) -> dict[str, Any]:
        return {}


class Watching:
    @hookimpl
    def calls_settled(self, calls: Sequence[CallSettled]) -> None:
        assert_type(calls[0].failure, Failure | None)


@traced
def priced(item: str) -> int:
    return len(item)


def main() -> None:
    with OrchestratorService(init_db("sqlite:///a.db")) as service:
        execution_id = service.start_execution(total, inputs={"start": 1, "urls": []})
        assert_type(execution_id, str)
        assert_type(service.start_execution("await add(1, 2)", [add]), str)
        Worker(service, executor=Mine(), observers=[Watching()]).run(until_complete=True)
        assert_type(priced("tea"), int)
        priced(5)  # type: ignore[arg-type]  # a decorated function keeps its parameters
        assert_type(service.get_result(execution_id), Any)
        assert_type(service.get_pending_calls(execution_id), list[Call])
        assert_type(service.wait(execution_id, timeout_seconds=1.5), dict[str, Any])
        assert_type(service.list_executions("failed"), list[dict[str, Any]])
        service.fail_call(execution_id, 0, Failure("lost", "Lost", "gone"))
        Failure("broken", "Broken", "no such kind")  # type: ignore[arg-type]
        add("1", "2")  # type: ignore[arg-type]  # the parameters of a host function are checked


async def in_a_web_application() -> None:
    async with AsyncOrchestratorService("sqlite:///a.db", threads=2) as service:
        execution_id = await service.start_execution(total, inputs={}, id_reuse="return", tags={"a": "b"})
        assert_type(execution_id, str)
        assert_type(await service.wait(execution_id, timeout_seconds=1.5), dict[str, Any])
        assert_type(await service.backfill("nightly", 0.0, 1.0), list[str])
        await service.start_execution(total, id_reuse="again")  # type: ignore[arg-type]  # there is no such rule
        await service.cancel(execution_id, reason=5)  # type: ignore[arg-type]  # parameters are checked
        await service.get_result()  # type: ignore[call-arg]  # so is what is missing


def in_a_test() -> None:
    with WorkflowTest(functions={add: lambda a, b: 3, "fetch": lambda url: b""}) as t:
        t.fail(fetch, nth=2, error=TimeoutError)
        t.takes(add, lambda a, b: a + b)
        assert_type(t.run(total, {"start": 1, "urls": []}), Any)
        t.clock.advance(days=30)
        assert_type(t.run_until_blocked(), list[Wait])
        assert_type(t.calls, list[MadeCall])
        t.fail(5)  # type: ignore[arg-type]  # a function is named by itself or by a text

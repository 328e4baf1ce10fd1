"""What a type checker sees of the public interface; checked by `nox -s types`, never run."""

from __future__ import annotations

from typing import Any, assert_type

from durable_monty import Call, Executor, OrchestratorService, Retry, Worker, flow, function, init_db, workflow


@function
def add(a: int, b: int) -> int:
    return a + b


@function(retry=Retry(attempts=3), timeout_seconds=5, executor="cpu")
async def fetch(url: str) -> bytes:
    return url.encode()


@workflow
async def total(start: int, urls: list[str]) -> int:
    pages = await flow.map(fetch, urls, limit=4)
    result: int = await add(start, len(pages))
    return result


class Mine(Executor):
    def submit_call(self, call: Call) -> None:
        assert_type(call.job_id, str)

    def get_stats(self) -> dict[str, Any]:
        return {}


def main() -> None:
    with OrchestratorService(init_db("sqlite:///a.db")) as service:
        execution_id = service.start_execution(total, inputs={"start": 1, "urls": []})
        assert_type(execution_id, str)
        assert_type(service.start_execution("await add(1, 2)", [add]), str)
        Worker(service, executor=Mine()).run(until_complete=True)
        assert_type(service.get_result(execution_id), Any)
        assert_type(service.get_pending_calls(execution_id), list[Call])
        add("1", "2")  # type: ignore[arg-type]  # the parameters of a host function are checked

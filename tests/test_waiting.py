"""Waiting for results: at once, for any number of waiters, from threads and from an event loop."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading

import pytest

from durable_monty import (
    AsyncOrchestratorService,
    ExecutionConflict,
    ExecutionNotFound,
    OrchestratorService,
    Worker,
    init_db,
)
from durable_monty.config import Config
from durable_monty.store.starting import forget
from support import functions as host
from support.killed import SCRIPT
from support.statements import before_each_statement
from support.workers import eventually, running

CODE = "await add(n, 1)"


def start(service, n=1, **options):
    return service.start_execution(CODE, [host.add], {"n": n}, **options)


def end(service, execution_id):
    service.process_execution(execution_id)
    service.complete_call(execution_id, 0, 7)
    service.process_execution(execution_id)


class Waiter(threading.Thread):
    """One that waits in a thread of its own."""

    def __init__(self, service, execution_id):
        super().__init__()
        self.arguments = service, execution_id
        self.found = None
        self.start()

    def run(self):
        service, execution_id = self.arguments
        try:
            self.found = service.wait(execution_id, timeout_seconds=60)["status"]
        except Exception as error:
            self.found = type(error).__name__

    def result(self):
        self.join(60)
        return self.found


def is_watched(service, *ids):
    return set(ids) <= set(service.ends._waiting)


def test_an_end_in_another_process_is_noticed(database_url, service):
    """The other service has a store of its own, as another process has."""
    other = OrchestratorService(init_db(database_url), Config())
    execution_id = start(service)
    waiter = Waiter(service, execution_id)
    eventually(lambda: is_watched(service, execution_id))
    end(other, execution_id)
    assert waiter.result() == "completed"
    other.close()


def test_an_end_in_this_process_is_noticed(service):
    execution_id = start(service)
    waiter = Waiter(service, execution_id)
    eventually(lambda: is_watched(service, execution_id))
    end(service, execution_id)
    assert waiter.result() == "completed"


def test_an_end_in_a_database_in_memory_is_noticed():
    with OrchestratorService(init_db("sqlite:///:memory:"), Config()) as service:
        execution_id = start(service)
        waiter = Waiter(service, execution_id)
        eventually(lambda: is_watched(service, execution_id))
        end(service, execution_id)
        assert waiter.result() == "completed"


def test_what_has_ended_or_is_unknown_is_not_waited_for(service):
    execution_id = start(service)
    end(service, execution_id)
    assert service.wait(execution_id, timeout_seconds=0)["output"] == 7
    with pytest.raises(ExecutionNotFound):
        service.wait("nobody")
    assert service.ends._thread is None


def test_every_way_to_end_and_closing_wakes_those_who_wait(database_url, service):
    other = OrchestratorService(init_db(database_url), Config())
    ids = [start(service) for _ in range(3)]
    waiters = [Waiter(service, execution_id) for execution_id in ids]
    eventually(lambda: is_watched(service, *ids))
    other.cancel(ids[0])
    assert waiters[0].result() == "cancelled"
    other.runtime.store.claim("w", other.runtime.clock(), 10, [ids[1]])
    other.runtime.store.record_crash("w", ids[1], None, "crashed")
    assert waiters[1].result() == "paused"
    service.close()
    assert waiters[2].result() == "StoreError"
    other.close()


def test_a_deleted_execution_is_not_waited_for_for_ever(service):
    execution_id = start(service)
    waiter = Waiter(service, execution_id)
    eventually(lambda: is_watched(service, execution_id))
    with service.runtime.store._connections.write() as connection:
        forget(connection, [execution_id])
    assert waiter.result() == "ExecutionNotFound"


def test_a_hundred_who_wait_cost_as_much_as_one(database_url, service):
    """Counted in queries while nothing ends: one for all of them, not one for each again and again."""
    statements = []
    ids = [start(service, index) for index in range(100)]
    waiters = [Waiter(service, execution_id) for execution_id in ids]
    eventually(lambda: is_watched(service, *ids))
    other = OrchestratorService(init_db(database_url), Config())
    bystander = start(other, 7, delay_seconds=3600)
    end_listening = before_each_statement(service.runtime.store._connections.engine, statements.append)
    other.cancel(bystander)
    end(other, ids[0])
    assert waiters[0].result() == "completed"
    # For each of a handful of commits of the other one look for all; the one that is over looks for itself.
    end_listening()
    assert 0 < len(statements) < 40
    for execution_id in ids[1:]:
        other.cancel(execution_id)
    assert {waiter.result() for waiter in waiters[1:]} == {"cancelled"}
    assert not service.ends._waiting
    other.close()


def test_a_waiter_that_is_killed_disturbs_nobody(database_url, service):
    execution_id = start(service)
    command = [sys.executable, str(SCRIPT), database_url, "wait", "never", "1", execution_id]
    with subprocess.Popen(
        command, env={"PYTHONPATH": str(SCRIPT.parent.parent)}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        process.kill()
    end(service, execution_id)
    assert service.wait(execution_id, timeout_seconds=5)["status"] == "completed"


def test_the_async_service_does_what_the_other_does(service):
    async def main():
        aio = AsyncOrchestratorService(service)
        execution_id = await aio.start_execution(CODE, [host.add], {"n": 1}, execution_id="one", tags={"a": "b"})
        assert (await aio.get_execution(execution_id))["tags"] == {"a": "b"}
        with pytest.raises(ExecutionConflict):
            await aio.start_execution(CODE, [host.add], {"n": 2}, execution_id="one")
        waiting = [asyncio.create_task(aio.wait(execution_id)) for _ in range(50)]
        await aio.process_execution(execution_id)
        (call,) = await aio.get_pending_calls(execution_id)
        with pytest.raises(TimeoutError, match=r"still waiting after 0\.01 s"):
            await aio.wait(execution_id, timeout_seconds=0.01)
        await aio.complete_call(execution_id, call.call_id, 7)
        await aio.process_execution(execution_id)
        assert {found["output"] for found in await asyncio.gather(*waiting)} == {7}
        assert await aio.get_result(execution_id) == 7
        assert [item["execution_id"] for item in await aio.list_executions(tags={"a": "b"})] == ["one"]
        with pytest.raises(ExecutionNotFound):
            await aio.wait("nobody")
        cancelled = asyncio.create_task(aio.wait(await aio.start_execution("1")))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await aio.close()

    asyncio.run(main())
    assert not service.ends._waiting


def test_more_tasks_than_threads_wait_for_what_a_worker_does(service):
    async def main():
        async with AsyncOrchestratorService(service, threads=1) as aio:
            ids = [await aio.start_execution(CODE, [host.add], {"n": index}) for index in range(10)]
            return [found["output"] for found in await asyncio.gather(*map(aio.wait, ids))]

    with running(Worker(service)):
        assert asyncio.run(main()) == list(range(1, 11))


def test_every_public_method_has_an_async_face_with_the_same_parameters():
    own = {"close", "not_ended"}
    for name, method in inspect.getmembers(OrchestratorService, inspect.isfunction):
        if name.startswith("_") or name in own:
            continue
        face = AsyncOrchestratorService.__dict__.get(name)
        assert face is not None, f"{name} is missing in aio.py"
        if name != "wait":
            assert face._method is method
    assert inspect.signature(AsyncOrchestratorService.wait) == inspect.signature(OrchestratorService.wait)


def test_an_async_service_without_threads_is_refused():
    with pytest.raises(ValueError, match="threads is 0"):
        AsyncOrchestratorService("sqlite:///a.db", threads=0)

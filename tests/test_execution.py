"""What an execution does, on each database: values, exceptions, delivery, time, limits, cancellation, rebuilding."""

from __future__ import annotations

import datetime as dt
import logging
import sqlite3
import time
from contextlib import closing

import pytest

from durable_monty import ExecutionFailed, OrchestratorService, Worker
from durable_monty.config import Config
from durable_monty.store import init_db
from support import functions as host


def run(service, code, functions=(), inputs=None, **options):
    execution_id = service.start_execution(code, functions, inputs, **options)
    Worker(service).run(until_complete=True)
    return service.get_result(execution_id)


def error_of(service, code, functions=(), inputs=None, **options):
    with pytest.raises(ExecutionFailed):
        run(service, code, functions, inputs, **options)
    return service.list_executions(limit=1)[0]["error"]


def test_a_value_comes_back_from_calls_made_one_after_the_other(service):
    code = "a = await add(1, 2)\nb = await add(a, n)\nb"
    assert run(service, code, [host.add], {"n": 10}) == 13


def test_calls_of_a_gather_run_and_their_values_come_back_in_order(service):
    code = "from asyncio import gather\nawait gather(*[add(i, i) for i in range(20)])"
    assert run(service, code, [host.add]) == [2 * i for i in range(20)]


def test_a_coroutine_may_be_made_first_and_awaited_later(service):
    code = (
        "from asyncio import gather\nxs = [add(i, 1) for i in range(3)]\ny = await add(10, 1)\n[y, await gather(*xs)]"
    )
    assert run(service, code, [host.add]) == [11, [1, 2, 3]]


def test_every_value_that_json_cannot_carry_arrives_as_it_was(lite_service):
    value = {
        "bytes": b"a\xff",
        "tuple": (1, (2,)),
        "set": {1, 2},
        "big": 2**70,
        "date": dt.date(2026, 11, 24),
        "time": dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC),
        5: None,
    }
    assert run(lite_service, "await identity(value)", [host.identity], {"value": value}) == value


def test_an_exception_is_caught_in_the_workflow_by_its_type(service):
    code = "try:\n    await fail('ValueError', 'too bad')\nexcept ValueError as e:\n    found = str(e)\nfound"
    assert run(service, code, [host.fail]) == "too bad"


def test_an_exception_that_the_sandbox_does_not_know_is_caught_by_its_base(service):
    code = "try:\n    await out_of_stock()\nexcept LookupError as e:\n    found = str(e)\nfound"
    assert run(service, code, [host.out_of_stock]) == "OutOfStock: no more apples"


def test_an_uncaught_exception_fails_with_both_tracebacks(service):
    error = error_of(service, "x = 1\ny = await fail('ValueError', 'too bad')", [host.fail])
    assert 'File "<workflow>", line 2' in error
    assert "    y = await fail('ValueError', 'too bad')\n        ^^^^^" in error
    assert "ValueError: too bad" in error
    assert "support/functions.py" in error, "the function's own traceback is part of it"


def test_a_branch_of_a_gather_goes_on_without_waiting_for_its_siblings(lite_service, tmp_path):
    """The pipeline's second call is made while the slow sibling still runs."""
    code = """
from asyncio import gather

async def pipeline():
    await note(path, "first")
    return await note(path, "second")

async def slow():
    await sleep(0.5)
    return await note(path, "slow")

await gather(slow(), pipeline())
"""
    path = tmp_path / "order.txt"
    run(lite_service, code, [host.note, host.sleep], {"path": str(path)})
    assert path.read_text().split() == ["first", "second", "slow"]


def test_a_blocking_function_is_called_without_await(service):
    assert run(service, "x = add_now(1, 2)\nx + await add(x, 1)", [host.add_now, host.add]) == 7


def test_a_forgotten_await_names_the_line_at_run_time(lite_service):
    error = error_of(lite_service, "x = 1\ny = add(1, 2)\nawait identity(y)", [host.add, host.identity], check=False)
    assert "RuntimeError" in error
    assert "await" in error
    assert "line 2" in error


def test_an_unknown_name_is_a_name_error_in_the_workflow(lite_service):
    code = "try:\n    await nobody(1)\nexcept NameError as e:\n    found = str(e)\nfound"
    assert "nobody" in run(lite_service, code, [host.add], check=False)


@pytest.mark.parametrize("name", ["input", "dir", "globals"])
def test_a_builtin_that_the_sandbox_lacks_never_becomes_a_call(lite_service, name):
    error = error_of(lite_service, f"{name}()", [host.add], check=False)
    assert "NameError" in error


def test_sleep_is_durable_time(service):
    code = "import asyncio\nawait asyncio.sleep(0.05)\nawait add(1, 1)"
    assert run(service, code, [host.add]) == 2


def test_two_sleeps_side_by_side_end_in_their_order(service):
    code = """
import asyncio

async def nap(seconds, name):
    await asyncio.sleep(seconds)
    order.append(name)

order = []
await asyncio.gather(nap(0.1, "b"), nap(0.03, "a"))
order
"""
    assert run(service, code) == ["a", "b"]


def test_sleeps_that_ended_while_no_worker_was_there_end_in_their_order(lite_service):
    code = """
from asyncio import gather, sleep
order = []
async def nap(seconds):
    await sleep(seconds)
    order.append(seconds)
await gather(*[nap(seconds) for seconds in (30, 10, 40, 20)])
order
"""
    execution_id = lite_service.start_execution(code, [])
    lite_service.process_execution(execution_id)
    lite_service.runtime.engine._clock = lambda: time.time() + 3600
    lite_service.process_execution(execution_id)
    assert lite_service.get_result(execution_id) == [10, 20, 30, 40]


def test_the_clock_read_in_a_workflow_is_the_wall_clock(lite_service):
    before = time.time()
    found = run(lite_service, "import datetime\ndatetime.datetime.now(datetime.timezone.utc).timestamp()")
    assert before - 1 <= found <= time.time() + 1


def test_a_loop_without_end_fails_that_execution_and_no_other(tmp_path):
    config = Config.model_validate({"interpreter": {"max_turn_seconds": 0.3, "request_timeout_seconds": 2}})
    service = OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), config)
    inputs = [{"n": n} for n in range(10)]
    healthy = service.start_executions("await add(n, 2)", [host.add], inputs)
    spinning = service.start_execution("while True:\n    pass")
    healthy += service.start_executions("await add(n, 2)", [host.add], inputs)
    Worker(service).run(until_complete=True)
    assert service.get_execution(spinning)["status"] == "failed"
    assert "TimeoutError" in service.get_execution(spinning)["error"]
    assert [service.get_result(id_) for id_ in healthy] == 2 * [n + 2 for n in range(10)]
    service.close()


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_many_executions_go_on_with_few_sandbox_processes(tmp_path, processes):
    config = Config.model_validate({"interpreter": {"processes": processes}})
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), config) as service:
        code = "from asyncio import gather\nsum(await gather(add(n, 1), add(n, 2))) + await add(n, 3)"
        ids = service.start_executions(code, [host.add], [{"n": n} for n in range(20)])
        Worker(service).run(until_complete=True)
        assert [service.get_result(id_) for id_ in ids] == [3 * n + 6 for n in range(20)]


def test_too_much_memory_fails_that_execution(tmp_path):
    config = Config.model_validate({"interpreter": {"max_memory_bytes": 2**21}})
    service = OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), config)
    error = error_of(service, "x = []\nwhile True:\n    x.append('y' * 1000)", [])
    assert "MemoryError" in error
    service.close()


def test_a_result_that_cannot_be_encoded_names_the_path(lite_service):
    error = error_of(
        lite_service, "def own():\n    pass\nawait identity({'a': [1, own]})", [host.identity], check=False
    )
    assert "TypeError" in error
    assert "['a'][1]" in error


def test_retries_follow_the_functions_policy(service):
    assert run(service, "await fail_until_third()", [host.fail_until_third]) == 3
    execution_id = service.list_executions(limit=1)[0]["execution_id"]
    failures = service.runtime.store.failed_attempts(execution_id)
    assert [(call_id, attempt) for call_id, attempt, *_ in failures] == [(0, 1), (0, 2)]


def test_a_function_that_runs_too_long_is_a_timeout_error(lite_service):
    code = "try:\n    await too_slow()\nexcept TimeoutError as e:\n    found = 'late'\nfound"
    assert run(lite_service, code, [host.too_slow]) == "late"


def test_cancelling_lets_finally_blocks_run_and_is_not_seen_by_except_exception(service, tmp_path):
    path = tmp_path / "seen.txt"
    code = """
try:
    await sleep(30)
except Exception:
    await note(path, "swallowed")
finally:
    await note(path, "finally")
"""
    execution_id = service.start_execution(code, [host.sleep, host.note], {"path": str(path)})
    worker = Worker(service, poll_interval=0.1)
    worker.run_until(lambda: service.get_pending_calls(execution_id) != [])
    service.cancel(execution_id, "enough")
    Worker(service).run(until_complete=True)
    found = service.get_execution(execution_id)
    assert (found["status"], found["error"]) == ("cancelled", "enough")
    assert path.read_text().split() == ["finally"]


def test_a_workflow_that_refuses_to_end_is_ended_at_the_deadline(service):
    code = """
while True:
    try:
        await sleep(30)
    except BaseException:
        pass
"""
    execution_id = service.start_execution(code, [host.sleep])
    Worker(service, poll_interval=0.1).run_until(lambda: service.get_pending_calls(execution_id) != [])
    service.cancel(execution_id, deadline_seconds=0.2)
    Worker(service, poll_interval=0.1).run(until_complete=True)
    assert service.get_execution(execution_id)["status"] == "cancelled"


def test_an_execution_that_has_not_begun_is_cancelled_at_once(service):
    execution_id = service.start_execution("await add(1, 2)", [host.add])
    service.cancel(execution_id)
    assert service.get_execution(execution_id)["status"] == "cancelled"


REBUILT = """
import datetime, random
from asyncio import gather, sleep
before = datetime.datetime.now()
draw = random.random()
xs = await gather(*[add(i, 1) for i in range(3)])
await sleep(0.01)
y = await add(sum(xs), 1)
assert before <= datetime.datetime.now()
z = await add(y, 1)
[z, draw]
"""


def test_a_damaged_snapshot_is_rebuilt_from_the_log_and_said_so(tmp_path, caplog):
    """At every suspension: the result is that of an undisturbed run, and no call is made twice."""
    file = tmp_path / "a.db"
    service = OrchestratorService(init_db(f"sqlite:///{file}"), Config())
    undisturbed, damaged = (service.start_execution(REBUILT, [host.add], execution_id=name) for name in ("u", "d"))

    def step(execution_id):
        service.process_execution(execution_id)
        for call in service.get_pending_calls(execution_id):
            service.complete_call(execution_id, call.call_id, sum(call.args))

    while service.get_execution(undisturbed)["status"] != "completed":
        step(undisturbed)
    turns = 0
    with caplog.at_level(logging.WARNING):
        while service.get_execution(damaged)["status"] != "completed":
            step(damaged)
            turns += 1
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("UPDATE snapshots SET snapshot = x'00ff' || snapshot WHERE execution_id = 'd'")
    assert turns > 3
    assert service.get_result(damaged)[0] == service.get_result(undisturbed)[0]
    assert "rebuilt from the log" in service.get_execution(damaged)["note"]
    assert "snapshot refused" in caplog.text
    made = [[call.function for call in service.runtime.store.calls(name)] for name in ("u", "d")]
    assert made[0] == made[1]
    service.close()


def test_a_snapshot_that_is_gone_is_rebuilt_too(tmp_path):
    file = tmp_path / "a.db"
    service = OrchestratorService(init_db(f"sqlite:///{file}"), Config())
    execution_id = service.start_execution(REBUILT, [host.add])
    service.process_execution(execution_id)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("DELETE FROM snapshots")
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id)[0] == 8
    service.close()

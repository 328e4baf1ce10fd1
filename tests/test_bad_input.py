"""Bad input: every error says what was being done, what was found and what to do next, and leaves the store as it was."""

from __future__ import annotations

import importlib
import re
import sqlite3
import sys
from contextlib import closing

import pytest
from sqlalchemy import create_engine, inspect, text

from durable_monty import (
    CallEnded,
    CallNotFound,
    ConfigError,
    EncodeError,
    ExecutionConflict,
    ExecutionEnded,
    ExecutionNotEnded,
    ExecutionNotFound,
    FunctionError,
    FunctionNotFound,
    InputError,
    LocalExecutor,
    OrchestratorService,
    SchemaMismatch,
    StoreUnreachable,
    Worker,
    WorkflowCheckError,
    WorkflowError,
    WorkflowSourceError,
    init_db,
    workflow,
)
from support import functions as host

ADD = "await add(n, 1)"


@workflow
async def order(card: str, cents: int = 100) -> int:
    return await host.add(cents, 1)


class Counter:
    def count(self, n: int) -> int:
        return n


def add(a: int, b: int) -> int:
    """Another function of this name."""
    return a - b


def start(code=ADD, functions=(host.add,), inputs=None, **options):
    return lambda service: service.start_execution(code, functions, inputs, **options)


BAD_STARTS = {
    "syntax error": (
        start("x = 1\nif x\n    x"),
        WorkflowCheckError,
        ["checking workflow", "2:5: syntax error", "if x"],
    ),
    "null character": (
        start("x = '\0'"),
        WorkflowCheckError,
        ["checking workflow", "syntax error", "nothing was started"],
    ),
    "async with": (
        start("async def f():\n    async with g:\n        pass\nawait f()", inputs={"g": 1}),
        WorkflowCheckError,
        ["checking workflow", "async with", "nothing was started"],
    ),
    "inheritance": (
        start("class A:\n    pass\nclass B(A):\n    pass\nB()"),
        WorkflowCheckError,
        ["checking workflow", "3:", "class B(A)"],
    ),
    "generator": (
        start("def f():\n    yield 1\nlist(f())"),
        WorkflowCheckError,
        ["checking workflow", "2:", "yield 1"],
    ),
    "module that the sandbox lacks": (
        start("import socket\nsocket.socket()"),
        WorkflowCheckError,
        ["checking workflow", "1:8: ", "module `socket`", "put what needs it into a host function"],
    ),
    "builtin that the sandbox lacks": (
        start("open('/etc/passwd')"),
        WorkflowCheckError,
        ["checking workflow", "1:1: Name `open`", "put what needs it into a host function"],
    ),
    "statement that the sandbox lacks": (
        start("x = 1\ndel x"),
        WorkflowCheckError,
        ["checking workflow", "2:1: ", "'del' statement", "write it in another way"],
    ),
    "return_exceptions": (
        start("from asyncio import gather\nawait gather(add(1, 2), return_exceptions=True)"),
        WorkflowCheckError,
        ["checking workflow", "2:", "use `settle` from durable_monty.flow"],
    ),
    "flow helper that does not exist": (
        start("from durable_monty.flow import rase\nawait rase()"),
        WorkflowCheckError,
        ["checking workflow", "has no 'rase'; it has ", "race"],
    ),
    "function that nobody names": (
        start("await charge(1)"),
        WorkflowCheckError,
        ["checking workflow", "no host function 'charge' is known", "name it in external_functions"],
    ),
    "superfluous await": (
        start("await add_now(1, 2)", [host.add_now]),
        WorkflowCheckError,
        ["checking workflow", "1:", "blocking=True is called without `await`"],
    ),
    "function of a module that does not exist": (
        start("await f(1)", ["no_such_module.f"]),
        FunctionNotFound,
        ["looking for the function 'no_such_module.f'", "no module 'no_such_module'", "PYTHONPATH"],
    ),
    "function that its module lacks": (
        start("await f(1)", ["support.functions.ad"]),
        FunctionNotFound,
        ["looking for the function 'support.functions.ad'", "has no 'ad'", "is it spelt right"],
    ),
    "name that cannot be called": (
        start("await f(1)", ["math.pi"]),
        FunctionNotFound,
        ["looking for the function 'math.pi'", "it is 3.14", "cannot be called"],
    ),
    "lambda": (
        start("await f(1)", [lambda n: n]),
        FunctionError,
        ["registering", "a lambda has no name", "define it with `def`"],
    ),
    "bound method": (
        start("await count(1)", [Counter().count]),
        FunctionError,
        ["registering", "bound to one object", "pass a function"],
    ),
    "object that is no function": (
        start("await f(1)", [7]),
        FunctionError,
        ["registering 7", "it is not a function", "define one with `def`"],
    ),
    "two functions of one name": (
        start("await add(1, 2)", [host.add, add]),
        WorkflowError,
        ["starting a workflow", "both are called 'add'", "rename one of them"],
    ),
    "missing input": (
        start(),
        InputError,
        ["starting workflow", "nobody defines 'n', first used at line 1", "inputs="],
    ),
    "misspelt input": (
        start("count = 1\nawait add(number, count)", inputs={"number": 1, "numbr": 2}),
        InputError,
        ["starting workflow", "never uses 'numbr'", "did you mean 'number'?"],
    ),
    "extra input": (
        start("await add(1, 2)", inputs={"zebra": 2}),
        InputError,
        ["starting workflow", "never uses 'zebra'", "remove it"],
    ),
    "missing argument of a workflow": (
        start(order, None),
        InputError,
        ["starting workflow 'order' with inputs []", "missing a required argument: 'card'", "it takes order(card"],
    ),
    "extra argument of a workflow": (
        start(order, None, {"card": "x", "colour": "red"}),
        InputError,
        ["starting workflow 'order' with inputs ['card', 'colour']", "'colour'", "it takes order(card"],
    ),
    "input that cannot be encoded": (
        start(inputs={"n": [{"x": (1, object())}]}),
        InputError,
        ["starting workflow", "inputs['n'][0]['x'][1]", "object"],
    ),
    "something that is no workflow": (
        start(print),
        WorkflowError,
        ["starting <built-in function print>", "neither source text nor a @workflow", "decorate it with @workflow"],
    ),
    "id with characters of a path": (
        start("1", (), execution_id="../a"),
        ValueError,
        ["starting execution '../a'", "1 to 100 letters", "choose another"],
    ),
    "id of another workflow": (
        start("await add(2, 2)", execution_id="done"),
        ExecutionConflict,
        ["starting execution 'done'", "exists with another workflow", "choose another id"],
    ),
    "id with other inputs": (
        start(inputs={"n": 2}, execution_id="done"),
        ExecutionConflict,
        ["starting execution 'done'", "exists with other inputs", "choose another id"],
    ),
}

BAD_REQUESTS = {
    "execution that does not exist": (
        lambda service: service.get_execution("nobody"),
        ExecutionNotFound,
        ["looking for execution 'nobody'", "has none with this id", "list"],
    ),
    "cancelling what does not exist": (
        lambda service: service.cancel("nobody"),
        ExecutionNotFound,
        ["execution 'nobody'", "has none with this id", "list"],
    ),
    "completing a call of what does not exist": (
        lambda service: service.complete_call("nobody", 0, 1),
        ExecutionNotFound,
        ["execution 'nobody'", "has none with this id", "list"],
    ),
    "waiting for what does not exist": (
        lambda service: service.wait("nobody"),
        ExecutionNotFound,
        ["execution 'nobody'", "has none with this id", "list"],
    ),
    "result before the end": (
        lambda service: service.get_result("waits"),
        ExecutionNotEnded,
        ["the result of execution 'waits'", "it is waiting", "run a worker"],
    ),
    "cancelling what has ended": (
        lambda service: service.cancel("done"),
        ExecutionEnded,
        ["cancelling execution 'done'", "has completed already"],
    ),
    "call that does not exist": (
        lambda service: service.complete_call("waits", 7, 1),
        CallNotFound,
        ["completing call 7 of execution 'waits'", "no such call", "get_pending_calls"],
    ),
    "call of an execution that has ended": (
        lambda service: service.fail_call("done", 0, "late"),
        CallEnded,
        ["failing call 0 of execution 'done'", "it is completed already", "came first stays"],
    ),
    "call that has ended": (
        lambda service: service.complete_call("waits", 0, 5),
        CallEnded,
        ["completing call 0 of execution 'waits'", "it is completed already", "came first stays"],
    ),
    "attempt that has not begun": (
        lambda service: service.complete_call("waits", 1, 5, attempt=2),
        CallEnded,
        ["completing call 1 of execution 'waits'", "attempt 2 is", "attempt 1 is the current one"],
    ),
    "result that cannot be encoded": (
        lambda service: service.complete_call("waits", 1, {"x": [1, object()]}),
        EncodeError,
        ["result['x'][1]", "object"],
    ),
    "status that does not exist": (lambda service: service.list_executions("asleep"), ValueError, ["'asleep'"]),
}


@pytest.fixture
def populated(lite_service):
    """A store with an execution that has ended and one that waits for a second call; gives the service."""
    lite_service.start_execution(ADD, [host.add], {"n": 1}, execution_id="done")
    code = "from asyncio import gather\nawait gather(add(1, 2), add(3, 4))"
    lite_service.start_execution(code, [host.add], execution_id="waits")
    for execution_id in ("done", "waits"):
        lite_service.process_execution(execution_id)
        lite_service.complete_call(execution_id, 0, 2)
    lite_service.process_execution("done")
    assert lite_service.get_result("done") == 2
    return lite_service


def contents(file):
    """Every row of the database."""
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("case", [*BAD_STARTS, *BAD_REQUESTS])
def test_bad_input_is_named_with_what_to_do_and_changes_nothing(populated, tmp_path, case):
    ask, kind, parts = {**BAD_STARTS, **BAD_REQUESTS}[case]
    before = contents(tmp_path / "lite.db")
    with pytest.raises(kind) as raised:
        ask(populated)
    for part in parts:
        assert part in str(raised.value)
    assert contents(tmp_path / "lite.db") == before


def test_a_value_that_is_nested_too_deeply_is_named_as_such(populated):
    deep = []
    for _ in range(5000):
        deep = [deep]
    for ask in (start(inputs={"n": deep}), lambda service: service.complete_call("waits", 1, deep)):
        with pytest.raises((InputError, EncodeError), match="nested more than 200 levels deep"):
            ask(populated)


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but somebody's notes\n" * 100)
    with pytest.raises(StoreUnreachable, match=r"opening the database .*notes\.txt.*not a database.*SQLite database"):
        init_db(f"sqlite:///{file}")
    assert file.read_text().startswith("not a database, but somebody's notes")


def test_a_database_with_tables_of_these_names_is_refused_and_left_alone(database_url):
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE executions (prisoner text)"))
    with pytest.raises(SchemaMismatch, match=r"'executions' of something else.*name another database"):
        init_db(database_url)
    assert inspect(engine).get_table_names() == ["executions"]
    engine.dispose()


def test_a_configuration_that_cannot_be_used_creates_no_database(tmp_path, monkeypatch):
    monkeypatch.setenv("DURABLE_MONTY_STORE__SYNCHRONOUS", "SOMETIMES")
    with pytest.raises(ConfigError, match="synchronous"):
        OrchestratorService(f"sqlite:///{tmp_path / 'a.db'}")
    assert not (tmp_path / "a.db").exists()


def test_a_start_with_bad_input_keeps_no_id_so_that_it_can_be_corrected(lite_service):
    with pytest.raises(InputError):
        lite_service.start_execution(ADD, [host.add], {}, execution_id="one")
    assert lite_service.start_execution(ADD, [host.add], {"n": 1}, execution_id="one") == "one"


def test_starting_what_has_ended_runs_nothing_again(populated):
    assert populated.start_execution(ADD, [host.add], {"n": 1}, execution_id="done") == "done"
    assert populated.get_execution("done")["status"] == "completed"
    assert len(populated.runtime.store.calls("done")) == 1


@pytest.mark.parametrize("path", ["support.functions.add", "support.functions:add"])
def test_a_dotted_path_is_stored_in_one_spelling(lite_service, path):
    lite_service.start_execution("await add(1, 2)", [path], execution_id="e")
    lite_service.process_execution("e")
    assert [call.function_name for call in lite_service.get_pending_calls("e")] == ["support.functions.add"]


def test_a_workflow_that_uses_what_cannot_be_taken_is_refused_with_the_line(lite_service):
    handle = object()

    @workflow
    async def reads() -> str:
        return str(handle)

    with pytest.raises(WorkflowSourceError) as raised:
        lite_service.start_execution(reads)
    assert "'handle'" in str(raised.value)
    assert re.search(r"line \d+|:\d+", str(raised.value))
    assert lite_service.list_executions() == []


def test_a_function_that_is_not_registered_in_the_process_that_runs_it_is_refused(lite_service, tmp_path, monkeypatch):
    """It was passed as an object here; the process that runs it knows its name only."""
    (tmp_path / "undecorated.py").write_text("def plain(a: int) -> int:\n    return a\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = importlib.import_module("undecorated").plain
    code = "try:\n    await plain(1)\nexcept RuntimeError as e:\n    found = str(e)\nfound"
    execution_id = lite_service.start_execution(code, [plain])
    Worker(lite_service, LocalExecutor(mode="process", workers=1)).run(until_complete=True)
    found = lite_service.get_result(execution_id)
    assert found.startswith("refused: running 'undecorated.plain': it is not registered")
    assert "[functions] allow" in found
    del sys.modules["undecorated"]

"""Damaged rows, and values that cannot leave the sandbox: one execution at most is affected, and it says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config
from support import functions as host

CHAIN = "a = await add(1, 2)\nb = await add(a, 1)\nawait add(b, 1)"
KEY = Config.model_validate({"security": {"signing_key": "0123456789abcdef"}})


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.db"


def change(file, *statements):
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0


def open_service(file, config=None):
    return OrchestratorService(init_db(f"sqlite:///{file}"), config or Config())


def begin(service, *names):
    """Start executions and bring each to its second call."""
    for name in names:
        service.start_execution(CHAIN, [host.add], execution_id=name)
        service.process_execution(name)
        service.complete_call(name, 0, 3)
        service.process_execution(name)


SNAPSHOT_DAMAGE = {
    "emptied": ["UPDATE snapshots SET snapshot = x'' WHERE execution_id = 'e'"],
    "one byte more": ["UPDATE snapshots SET snapshot = snapshot || x'00' WHERE execution_id = 'e'"],
    "of another execution": [
        """UPDATE snapshots SET (snapshot, digest) =
        (SELECT snapshot, digest FROM snapshots WHERE execution_id = 'other') WHERE execution_id = 'e'"""
    ],
    "of another turn": ["UPDATE snapshots SET version = version - 1 WHERE execution_id = 'e'"],
    "gone": ["DELETE FROM snapshots WHERE execution_id = 'e'"],
}


@pytest.mark.parametrize("damage", SNAPSHOT_DAMAGE)
def test_a_snapshot_that_is_not_the_turns_own_is_never_loaded(file, damage):
    """The execution is rebuilt from its log, no finished call is made again, and the note says it."""
    with open_service(file) as service:
        begin(service, "e", "other")
    change(file, *SNAPSHOT_DAMAGE[damage])
    with open_service(file) as service:
        Worker(service).run(until_complete=True)
        assert [service.get_result(name) for name in ("e", "other")] == [5, 5]
        assert "rebuilt from the log" in service.get_execution("e")["note"]
        assert service.get_execution("other")["note"] is None
        assert [call.attempt for call in service.runtime.store.calls("e")] == [1, 1, 1]


def test_with_a_signing_key_a_snapshot_that_is_not_signed_is_never_loaded(file):
    """Whoever can write to the database must not be able to run a program of his own in the sandbox."""
    with open_service(file) as service:
        begin(service, "e")
    with open_service(file, KEY) as service:
        Worker(service).run(until_complete=True)
        assert service.get_result("e") == 5
        assert "its signature does not fit" in service.get_execution("e")["note"]


LOG_DAMAGE = {
    "an outcome": ["UPDATE calls SET outcome = '{', batch = NULL, position = NULL WHERE execution_id = 'e'"],
    "inputs and no snapshot": [
        "UPDATE executions SET inputs = '{' WHERE id = 'e'",
        "DELETE FROM snapshots WHERE execution_id = 'e'",
    ],
    "another call and no snapshot": [
        "UPDATE calls SET arguments = '[[9,9],{}]' WHERE execution_id = 'e' AND call_id = 0",
        "DELETE FROM snapshots WHERE execution_id = 'e'",
    ],
}


@pytest.mark.parametrize("damage", LOG_DAMAGE)
def test_a_log_that_cannot_be_read_fails_that_execution_and_no_other(file, damage):
    """Were it an error of the worker, every worker that ever meets the row would end."""
    with open_service(file) as service:
        begin(service, "e", "other")
        service.complete_call("e", 1, 4)
    change(file, *LOG_DAMAGE[damage])
    with open_service(file) as service:
        Worker(service).run(until_complete=True)
        row = service.runtime.store.execution("e")
        assert row.status == "failed"
        assert "reading the log" in row.error or "rebuilding from the log" in row.error
        assert service.get_result("other") == 5


DEEP = "x = []\nfor i in range(600):\n    x = [x]\n"
INSTANCE = "class A:\n    pass\n"
UNFIT = {
    "a result that is nested too deeply": (f"{DEEP}x", "nested more than 200 levels deep"),
    "an argument that is nested too deeply": (f"{DEEP}await identity(x)", "nested more than 200 levels deep"),
    "a set of instances as a result": (f"{INSTANCE}{{A()}}", "encoding result: a class instance"),
    "a set of instances as an argument": (
        f"{INSTANCE}await identity({{A()}})",
        "encoding the arguments: a class instance",
    ),
    "a dictionary of instances": (
        f"{INSTANCE}await identity(value={{A(): 1}})",
        "encoding the arguments: a class instance",
    ),
    "a function": ("def f():\n    pass\n[1, f]", "result[1]"),
    "a builtin function": ("{'f': len}", "result['f']"),
    "a class": (f"{INSTANCE}[A]", "result[0]"),
    "a method": ("class A:\n    def f(self):\n        pass\n[A().f]", "result[0]"),
    "a match": ("import re\n[re.match('a', 'a')]", "result[0]"),
    "a view of a dictionary": ("await identity({1: 2}.keys())", "args[0]"),
}


@pytest.mark.parametrize("value", UNFIT)
def test_a_value_that_cannot_leave_the_sandbox_fails_that_execution_and_no_other(lite_service, value):
    code, words = UNFIT[value]
    lite_service.start_execution(code, [host.identity], execution_id="e", check=False)
    healthy = lite_service.start_execution("await add(1, 2)", [host.add])
    Worker(lite_service).run(until_complete=True)
    assert lite_service.get_execution("e")["status"] == "failed"
    assert "TypeError" in lite_service.get_execution("e")["error"]
    assert words in lite_service.get_execution("e")["error"]
    assert lite_service.get_result(healthy) == 3


def test_an_argument_that_cannot_leave_the_sandbox_is_caught_in_the_workflow(lite_service):
    code = f"{INSTANCE}try:\n    await identity({{A()}})\nexcept TypeError as e:\n    found = str(e)\nfound"
    execution_id = lite_service.start_execution(code, [host.identity], check=False)
    Worker(lite_service).run(until_complete=True)
    assert "use a list" in lite_service.get_result(execution_id)

"""What is boundless ends its own execution, by an error that names the limit and its setting; the worker stays small."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback

import pytest

from durable_monty import (
    EncodeError,
    InputError,
    LocalExecutor,
    OrchestratorService,
    WorkflowCheckError,
    WorkflowError,
    function,
    init_db,
)
from durable_monty.config import Config
from durable_monty.envelope import decode_reply
from durable_monty.interpreter.budget import Budget, Limits, OverLimit
from durable_monty.models import MAX_MESSAGE_CHARACTERS, MAX_TRACEBACK_CHARACTERS
from durable_monty.remote import make_envelope, run
from hostile.running import run_all
from support import functions as host

MIB = 1024 * 1024
SMALL = {
    "max_turn_seconds": 1.0,
    "request_timeout_seconds": 2.0,
    "max_memory_bytes": 32 * MIB,
    "max_open_calls": 200,
    "max_value_bytes": 100_000,
    "max_print_characters": 20_000,
    "max_source_bytes": 50_000,
}
_FLOW = "from durable_monty.flow import emit, publish, race, signal\n"

# Source; what the error has to say.
BOMBS: dict[str, tuple[str, str]] = {
    "endless loop": ("while True:\n    pass", "[interpreter] max_turn_seconds"),
    "endless loop that catches everything": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        "[interpreter] max_turn_seconds",
    ),
    "endless loop in a finally": (
        "try:\n    raise ValueError('x')\nfinally:\n    while True:\n        pass",
        "[interpreter] max_turn_seconds",
    ),
    "endless clock": ("import time\nwhile True:\n    time.time()", "[interpreter] max_open_calls"),
    "endless unknown name": (
        "while True:\n    try:\n        nope()\n    except NameError:\n        pass",
        "[interpreter] max_turn_seconds",
    ),
    "endless mark": (f"{_FLOW}used = race\nwhile True:\n    _here()", "[interpreter] max_turn_seconds"),
    "endless refused call": (
        "while True:\n    try:\n        identity(print)\n    except TypeError:\n        pass",
        "[interpreter] max_turn_seconds",
    ),
    "endless publishing": (f"{_FLOW}while True:\n    publish('k', 1)", "[interpreter] max_open_calls"),
    "endless emitting": (f"{_FLOW}while True:\n    emit('k', 1)", "[interpreter] max_open_calls"),
    "memory": ("x = []\nwhile True:\n    x.append('a' * 10 ** 6)", "[interpreter] max_memory_bytes"),
    "one large text": ("'a' * 10 ** 12", "[interpreter] max_memory_bytes"),
    "many small objects": ("x = [{i: i} for i in range(10 ** 7)]", "[interpreter] max_memory_bytes"),
    "power": ("10 ** 10 ** 10", "[interpreter] max_memory_bytes"),
    "doubling": ("x = 'a'\nwhile True:\n    x = x + x", "[interpreter] max_memory_bytes"),
    "joining": ("''.join(['a' * 10 ** 6] * 10 ** 6)", "[interpreter] max_memory_bytes"),
    "recursion": ("def f():\n    return f()\nf()", "RecursionError"),
    "mutual recursion": ("def f():\n    return g()\ndef g():\n    return f()\nf()", "RecursionError"),
    "million calls in one gather": (
        "from asyncio import gather\nawait gather(*[add(1, i) for i in range(10 ** 6)])",
        "[interpreter] max_open_calls",
    ),
    "million calls that nobody awaits": (
        "for i in range(10 ** 6):\n    add(1, i)\nawait add(1, 2)",
        "[interpreter] max_open_calls",
    ),
    "million tasks": (
        (
            "from asyncio import gather\nasync def f(i):\n    return await add(1, i)\n"
            "await gather(*[f(i) for i in range(10 ** 6)])"
        ),
        "[interpreter] max_",
    ),
    "million timers": (
        "from asyncio import gather, sleep\nawait gather(*[sleep(9) for i in range(10 ** 6)])",
        "[interpreter] max_open_calls",
    ),
    "million signals": (
        f"{_FLOW}from asyncio import gather\nawait gather(*[signal('s') for i in range(10 ** 6)])",
        "[interpreter] max_",
    ),
    "open calls that pile up over turns": (
        "n = 0\nwhile True:\n    x = [identity(i) for i in range(150)]\n    await x[0]",
        "[interpreter] max_",
    ),
    "argument": ("await identity('a' * 10 ** 6)", "[interpreter] max_value_bytes"),
    "published value": (f"{_FLOW}publish('k', 'a' * 10 ** 6)", "[interpreter] max_value_bytes"),
    "result of the workflow": ("'a' * 10 ** 6", "[interpreter] max_value_bytes"),
    "result of a host function": ("await text(10 ** 6)", "[interpreter] max_value_bytes"),
    "value of a quarter of a gigabyte": ("await identity('a' * 256 * 1024 ** 2)", "[interpreter] max_memory_bytes"),
    "state that cannot be stored": (
        "x = 'a' * 25 * 1024 ** 2\nawait add(1, 2)\nlen(x)",
        "[interpreter] max_memory_bytes",
    ),
    "exception with a long text": ("raise ValueError('a' * 10 ** 7)", "characters are left out here"),
}
FUNCTIONS = (host.add, host.identity, host.fail, host.text)


def resident_bytes():
    """The most memory that this process has had."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module")
def exploded(tmp_path_factory):
    """Every bomb, on one worker between two ordinary executions; and by how much the process has grown."""
    path = tmp_path_factory.mktemp("bombs") / "bombs.db"
    config = Config.model_validate({"interpreter": SMALL})
    with OrchestratorService(init_db(f"sqlite:///{path}", synchronous="NORMAL"), config) as service:
        before = resident_bytes()
        found = run_all(service, {name: source for name, (source, _) in BOMBS.items()}, FUNCTIONS)
        return found, resident_bytes() - before


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_its_own_execution_and_the_error_names_the_setting(exploded, name):
    found = exploded[0][name]
    assert found["status"] == "failed", (found["status"], found["note"], found["output"])
    # On a machine that has much else to do, any of them may run out of time first.
    assert BOMBS[name][1] in found["error"] or "[interpreter] max_turn_seconds" in found["error"]
    assert len(found["error"]) < 1_000_000


def test_the_worker_stays_small(exploded):
    assert exploded[1] < 300 * MIB


HARMLESS = {
    "regular expression": "import re\n[re.match(p, 'a' * 300 + 'b') for p in ('(a+)+$', '(a|aa)+$', '(.*)*x')]\n1",
    "flood of prints": "for i in range(20000):\n    print('x' * 1000)\nawait add(1, 0)",
    "prints without an end of line": "for i in range(2000):\n    print('x', end='')\nawait add(1, 0)",
    "as many calls as may be": "from asyncio import gather\nlen(await gather(*[add(1, i) for i in range(200)])) // 200",
    "as many again": (
        "from asyncio import gather\nfor i in range(3):\n    await gather(*[add(1, i) for i in range(200)])\n1"
    ),
    "as many signals in turn": "from durable_monty.flow import map\nlen(await map(identity, range(600), limit=50)) // 600",
    "largest value": "len(await identity('a' * 99_900)) // 99_900",
}


def test_what_keeps_to_the_limits_is_not_disturbed(tmp_path, caplog):
    config = Config.model_validate({"interpreter": {**SMALL, "max_turn_seconds": 5.0}})
    caplog.set_level("INFO", "durable_monty.prints")
    with OrchestratorService(init_db(f"sqlite:///{tmp_path / 'a.db'}", synchronous="NORMAL"), config) as service:
        found = run_all(service, HARMLESS, FUNCTIONS)
    assert {name: item["output"] for name, item in found.items()} == dict.fromkeys(HARMLESS, 1), found
    printed = "".join(record.getMessage() for record in caplog.records)
    assert "max_print_characters" in printed
    assert len(printed) < 3 * SMALL["max_print_characters"]


def test_what_comes_from_outside_is_limited_as_well(tmp_path):
    config = Config.model_validate({"interpreter": SMALL})
    large = "a" * 200_000
    with OrchestratorService(init_db(f"sqlite:///{tmp_path / 'a.db'}", synchronous="NORMAL"), config) as service:
        id_ = service.start_execution("await identity(1)", [host.identity])
        service.process_execution(id_)
        for ask, error in (
            (lambda: service.start_execution("x", inputs={"x": large}), InputError),
            (lambda: service.start_execution("1", memo={"x": large}), InputError),
            (lambda: service.signal(id_, "s", large), EncodeError),
            (lambda: service.complete_call(id_, 0, large), EncodeError),
            (lambda: service.start_execution(f"'{large}'"), WorkflowError),
        ):
            with pytest.raises(error, match=r"\[interpreter\] max_(value|source)_bytes"):
                ask()
        assert service.get_execution(id_)["status"] == "waiting"
        assert len(service.list_executions()) == 1


SOURCES = {
    "brackets": "(" * 5_000 + ")" * 5_000,
    "unary signs": "-" * 40_000 + "1",
    "sum": "1" + "+1" * 20_000,
    "attributes": "x" + ".a" * 20_000,
    "calls": "x" + "()" * 20_000,
    "nested lists": "[" * 90 + "]" * 90,
    "nested functions": "\n".join(" " * i + "def f():" for i in range(99)) + "\n" + " " * 99 + "pass",
    "nested comparisons": "not " * 10_000 + "1",
    "lambda in lambda": "lambda:" * 5_000 + "1",
    "comprehensions": "[x for x in " * 40 + "[]" + "]" * 40,
    "conditions": "1 if 1 else " * 3_000 + "1",
    "strings in f-strings": "f'{" * 3 + "1" + "}'" * 3,
    "await": "await " * 5_000 + "f()",
    "null characters": "x = '\0'",
    "many statements": "x = 1\n" * 8_000,
    "many names": "; ".join(f"x{i} = {i}" for i in range(3_000)),
}
CHECK = """
import json, sys
from durable_monty import DurableMontyError, OrchestratorService, init_db
from durable_monty.config import Config
limits = {"request_timeout_seconds": 2.0}
service = OrchestratorService(init_db("sqlite:///:memory:"), Config.model_validate({"interpreter": limits}))
for name, source in json.load(sys.stdin).items():
    for check in (True, False):
        try:
            service.start_execution(source, inputs={}, check=check)
            print(name, "started")
        except DurableMontyError as error:
            assert len(str(error)) < 500_000, name
            print(name, type(error).__name__)
"""


@pytest.mark.thorough
def test_no_source_breaks_the_process_that_checks_it():
    """In a process of its own: what goes wrong here may be the end of the process."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        input=json.dumps(SOURCES),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 2 * len(SOURCES)
    assert "many statements started" in done.stdout


@function
def raises_much(what: str) -> str:
    if what == "text":
        raise ValueError("x" * 5_000_000)
    if what == "chain":
        error: Exception = ValueError("first")
        for number in range(5_000):
            later = ValueError(str(number))
            later.__cause__ = error
            error = later
        raise error
    if what == "group":
        raise ExceptionGroup("many", [ValueError("y" * 100) for _ in range(20_000)])
    if what == "recursion":
        return raises_much.__wrapped__("recursion")
    if what == "name":
        raise type("E" * 100_000, (Exception,), {})("x")
    if what == "text that cannot be had":

        class Mute(Exception):
            def __str__(self):
                raise RuntimeError

        raise Mute(1, 2)
    raise SystemExit(what)


@function
def floods() -> int:
    for _ in range(2_000):
        print("z" * 1_000)
        print("z" * 1_000, file=sys.stderr)
    return 1


WHATS = ["text", "chain", "group", "recursion", "name", "text that cannot be had", "exit"]


@pytest.mark.parametrize("what", WHATS)
def test_a_failure_is_no_larger_than_it_may_be(what):
    data = run(make_envelope("hostile.test_bombs.raises_much", [what], job_id="e-0-1"))
    failure = decode_reply(data, None).failure
    assert failure.kind == "user"
    assert len(failure.message) < MAX_MESSAGE_CHARACTERS + 100
    assert len(failure.traceback) < MAX_TRACEBACK_CHARACTERS + 100
    assert len(failure.type) < 300
    assert failure.traceback


@pytest.mark.parametrize("mode", ["thread", pytest.param("process", marks=pytest.mark.thorough)])
def test_a_host_function_that_floods_harms_nobody(lite_service, mode, capfd):
    whats = WHATS if mode == "thread" else ["text", "chain"]
    sources = {what: f"await raises_much({what!r})" for what in whats} | {"flood": "await floods()"}
    found = run_all(lite_service, sources, (raises_much, floods, host.add), LocalExecutor(mode=mode, workers=2))
    capfd.readouterr()
    assert found["flood"]["output"] == 1, found["flood"]
    for what in whats:
        assert found[what]["status"] == "failed"
        assert len(found[what]["error"]) < 1_000_000


def test_time_that_the_worker_was_stopped_for_is_not_the_workflow_s():
    """A worker that is stopped for an hour within a turn goes on as if nothing had been."""
    now = 0.0
    budget = Budget(Limits(max_turn_seconds=10), lambda: now)
    for step in (4.0, 3600.0, 5.0):
        now += step
        budget.suspend()
    now += 2.0
    with pytest.raises(OverLimit, match=r"\[interpreter\] max_turn_seconds"):
        budget.suspend()


@pytest.mark.thorough
def test_a_check_whose_process_is_ended_is_a_finding(tmp_path):
    config = Config.model_validate({"interpreter": {"request_timeout_seconds": 0.05}})
    source = "x = [" + "(1, 2), " * 60_000 + "]"
    with (
        OrchestratorService(init_db(f"sqlite:///{tmp_path / 'a.db'}", synchronous="NORMAL"), config) as service,
        pytest.raises(WorkflowCheckError, match="too large or too deeply nested to be checked"),
    ):
        service.start_execution(source)


def test_a_syntax_error_in_a_deep_source_says_what_to_do(lite_service):
    with pytest.raises(WorkflowCheckError, match="nested too deeply") as raised:
        lite_service.start_execution("-" * 200_000 + "1")
    assert "".join(traceback.format_exception(raised.value)).count("RecursionError") <= 2

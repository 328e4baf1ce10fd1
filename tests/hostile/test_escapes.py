"""Nothing that a workflow can write gets hold of anything outside its sandbox, or harms another execution."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, function, init_db
from durable_monty.config import Config
from hostile.escapes import TRICKS, Gives
from hostile.marks import CALLS
from hostile.running import HOST_FUNCTIONS, is_raised, run_all

# What the machine has and a sandbox must not tell: addresses of the process, its paths, its user's account.
TELLTALE = re.compile(r"0x[0-9a-f]{9,}|site-packages|/home/|/usr/lib|root:x:0|<built-in method|<module 'os'")


@pytest.fixture(scope="module")
def short_limits(tmp_path_factory):
    """A service whose workflows have two seconds for a turn."""
    interpreter = {"max_turn_seconds": 2.0, "request_timeout_seconds": 3.0}
    config = Config.model_validate({"interpreter": interpreter})
    path = tmp_path_factory.mktemp("hostile") / "hostile.db"
    with OrchestratorService(init_db(f"sqlite:///{path}", synchronous="NORMAL"), config) as service:
        yield service


@pytest.fixture(scope="module")
def tried(short_limits):
    return run_all(short_limits, {name: source for name, (source, _) in TRICKS.items()})


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_ends_in_an_error_or_in_a_harmless_value(tried, name):
    wanted = TRICKS[name][1]
    found = tried[name]
    if isinstance(wanted, Gives):
        assert (found["status"], found["output"]) == ("completed", wanted.value), found["error"]
    else:
        # On a machine that has much else to do, what fills the memory may run out of time first.
        kinds = [*wanted.split(" or "), *(["TimeoutError"] if "MemoryError" in wanted else [])]
        assert any(is_raised(found, kind) for kind in kinds), (
            found["status"],
            found["output"],
            found["error"],
        )
    assert not TELLTALE.search(f"{found['output']!r} {found['error']} {found['note']}")


def test_nothing_was_written_outside():
    assert not Path("/tmp/escaped").exists()


@pytest.fixture(scope="module")
def called(short_limits):
    return run_all(short_limits, CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_of_the_engine_s_own_names_harms_its_own_execution_alone(called, name):
    """`run_all` has seen that the others go on."""
    found = called[name]
    assert found["status"] in ("completed", "failed"), found["note"]
    if found["status"] == "failed":
        kinds = ("TypeError", "ValueError", "RuntimeError", "BaseException", "TimeoutError")
        assert any(is_raised(found, kind) for kind in kinds), found["error"]
        assert "Internal error" not in found["error"]


@pytest.mark.parametrize("name", [name for name in CALLS if "named with a null character" in name])
def test_a_null_character_is_refused_before_any_database(called, name):
    assert called[name]["status"] == "failed"
    assert is_raised(called[name], "ValueError")


def test_wrong_calls_do_no_more_harm_on_postgresql(postgresql_url):
    with OrchestratorService(init_db(postgresql_url, synchronous="NORMAL"), Config()) as service:
        found = run_all(service, CALLS)
    assert {item["status"] for item in found.values()} <= {"completed", "failed"}


class Handle:
    """Something that a host function could let slip."""

    secret = "an object of the host"

    def __call__(self):
        return self


@function
def lets_slip(what: str) -> object:
    handle = Handle()
    if what == "raised":
        raise LookupError(handle)
    return {
        "object": handle,
        "class": Handle,
        "function": lets_slip,
        "bound method": handle.__call__,
        "module": re,
        "generator": (item for item in ()),
        "file": sys.stderr,
        "exception": ValueError(handle),
        "dictionary": {"a": [(handle,)]},
        "lambda": lambda: handle,
    }[what]


@pytest.mark.parametrize(
    "what", ["object", "class", "function", "bound method", "module", "generator", "file", "dictionary", "lambda"]
)
def test_an_object_of_a_host_function_never_enters(lite_service, what):
    source = f"try:\n    x = await lets_slip({what!r})\nexcept RuntimeError as e:\n    x = str(e)\nx"
    found = run_all(lite_service, {"it": source}, (lets_slip,))["it"]
    assert found["status"] == "completed"
    assert found["output"].startswith("undecodable: encoding result")
    assert "cannot be carried" in found["output"]


def test_an_exception_of_a_host_function_enters_as_text(lite_service):
    raised = (
        "try:\n    await lets_slip('raised')\nexcept LookupError as e:\n    x = e.args\n[type(i).__name__ for i in x]"
    )
    returned = "x = await lets_slip('exception')\n[type(i).__name__ for i in x.args]"
    found = run_all(lite_service, {"raised": raised, "returned": returned}, (lets_slip,))
    assert found["raised"]["output"] == ["str"]
    assert found["returned"]["output"] == ["str"]


def test_no_worker_code_runs_for_what_a_workflow_names(lite_service):
    """A path is data: what is not named at the start cannot be called, however it is spelt."""
    sources = {
        "call by path": "f = 'support.functions.exit_process'\nawait eval(f)()",
        "as a child": "from durable_monty.flow import child\nawait child('support.functions.exit_process')",
        "as a predicate": "await identity(1, _options={'retry': {'when': 'os.abort'}})",
        "as a key": "await identity(1, _options={'key': 'os.abort', 'concurrency': 1})",
    }
    found = run_all(lite_service, sources, HOST_FUNCTIONS)
    assert is_raised(found["call by path"], "NameError")
    assert is_raised(found["as a child"], "ValueError")
    assert found["as a predicate"]["output"] == found["as a key"]["output"] == 1

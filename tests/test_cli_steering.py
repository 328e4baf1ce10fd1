"""`signal`, `pause`, `resume`, `retry`, `published`, `stream`, and what `show` says about an execution that waits."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config

SCRIPT = str(Path(sys.executable).parent / "durable-monty")
DESK = """
from asyncio import gather, sleep
from durable_monty import function, workflow
from durable_monty.flow import child, emit, publish, race, signal

@function
def weigh(name: str) -> int:
    return len(name)

@workflow
async def wait(name: str) -> int:
    return await signal("number", type=int)

@workflow
async def desk(name: str) -> list[object]:
    publish("state", {"of": name})
    emit("log", "begun")
    answer = await signal("number", type=int)
    emit("log", answer)
    return [answer, await weigh(name)]

@workflow
async def many() -> None:
    await gather(race(signal("a"), sleep(86400)), child(wait, {"name": "x"}), signal("b", timeout_seconds=3600))
"""


def run(*arguments, check=0):
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == check, f"{arguments} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture
def service(tmp_path, monkeypatch):
    """The database that the commands use, with an execution `d` that waits for a number."""
    (tmp_path / "desk_at_work.py").write_text(DESK)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "desk_at_work", raising=False)
    desk = importlib.import_module("desk_at_work")
    with OrchestratorService(init_db("sqlite:///durable-monty.db", synchronous="NORMAL"), Config()) as opened:
        opened.start_execution(desk.desk, inputs={"name": "ada"}, execution_id="d")
        opened.process_execution("d")
        opened.desk = desk
        yield opened


def weighed(service, value):
    (call,) = service.get_pending_calls("d")
    if isinstance(value, Exception):
        service.fail_call("d", call.call_id, value)
    else:
        service.complete_call("d", call.call_id, value)
    service.process_execution("d")


def test_a_signal_lets_an_execution_go_on(service):
    run("signal", "d", "number", "7")
    service.process_execution("d")
    weighed(service, 3)
    assert service.get_result("d") == [7, 3]
    assert "has completed already" in run("signal", "d", "number", "7", check=1).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("d", "number", "seven"), "write text in double quotes"),
        (("d", "number", '"seven"'), "the payload is 'seven' of type str; nothing was sent"),
        (("nobody", "number"), "has none with this id"),
        (("d", "n" * 201), "has 201 characters"),
    ],
)
def test_a_signal_that_cannot_be_sent_is_refused(service, arguments, words):
    assert words in run("signal", *arguments, check=2).stderr
    assert service.get_execution("d")["status"] == "waiting"


def test_pause_and_resume(service):
    run("pause", "d", "--reason", "let us look")
    found = service.get_execution("d")
    assert (found["status"], found["note"]) == ("paused", "let us look")
    run("resume", "d")
    assert service.get_execution("d")["status"] != "paused"
    service.cancel("d")
    service.process_execution("d")
    for command in ("pause", "resume"):
        assert "was cancelled already" in run(command, "d", check=1).stderr


def test_a_failed_execution_is_retried(service):
    assert "only a failed one can be retried" in run("retry", "d", check=1).stderr
    service.signal("d", "number", 1)
    service.process_execution("d")
    weighed(service, OSError("the scales are broken"))
    assert service.get_execution("d")["status"] == "failed"
    run("retry", "d")
    weighed(service, 3)
    assert service.get_result("d") == [1, 3]


@pytest.mark.parametrize("command", ["pause", "resume", "retry", "published", "stream"])
def test_an_unknown_execution_is_an_error(service, command):
    arguments = ("nobody", "log") if command == "stream" else ("nobody",)
    assert "has none with this id" in run(command, *arguments, check=2).stderr


def test_what_is_published_is_printed(service):
    assert run("published", "d").stdout.splitlines()[1].split(maxsplit=1) == ["state", '{"of": "ada"}']
    assert json.loads(run("published", "d", "state").stdout) == {"of": "ada"}
    assert json.loads(run("published", "d", "--json").stdout) == {"state": {"of": "ada"}}
    assert "it has published 'state' so far" in run("published", "d", "stat", check=1).stderr


def test_a_stream_is_followed_to_the_end_of_the_execution(service):
    follower = subprocess.Popen([SCRIPT, "stream", "d", "log", "--follow"], stdout=subprocess.PIPE, text=True)
    assert follower.stdout.readline() == '"begun"\n'
    service.signal("d", "number", 5)
    service.process_execution("d")
    weighed(service, 3)
    assert follower.communicate(timeout=60)[0] == "5\n"
    assert run("stream", "d", "log", "--offset", "1").stdout == "5\n"
    assert run("stream", "d", "nothing").stdout == ""


def test_show_says_what_an_execution_waits_for(service):
    service.start_execution(service.desk.many, execution_id="m")
    service.process_execution("m")
    shown = run("show", "m").stdout
    lines = [line for line in shown.splitlines() if line.startswith("waits for")]
    assert sorted(re.sub(r" at line \d+|until [\d :-]+|m-\d+", "", "\n".join(lines)).splitlines()) == [
        "waits for  a timer, ",
        "waits for  child ''",
        "waits for  signal 'a'",
        "waits for  signal 'b', ",
    ]
    for name in ("_enter", "_open", "_here"):
        assert name not in shown
    waiting = json.loads(run("show", "m", "--json").stdout)["waiting_for"]
    (child,) = [item["execution_id"] for item in service.list_executions() if item["execution_id"].startswith("m-")]
    assert {(wait["kind"], wait["name"]) for wait in waiting} == {
        ("signal", "a"),
        ("timer", ""),
        ("child", child),
        ("signal", "b"),
    }
    shown = run("show", "d").stdout
    assert "waits for  signal 'number'" in shown
    assert "signal number" in shown

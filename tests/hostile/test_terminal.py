"""What users, workflows and functions say is shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import json
import logging
import re

import pytest
from click.testing import CliRunner

from durable_monty import OrchestratorService, Worker, function, init_db
from durable_monty.cli import main
from durable_monty.cli.output import json_text, visible
from durable_monty.config import Config

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
EVIL = (
    "\x1b[2J\x1b[31mred\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\\x1b]52;c;ZXZpbA==\x07"
    "\x9b31m\x9d0;t\x9c\x90q\x7f\b\b\rstatus     completed\x0b\x0c\u202egnp.exe\u2066\u2028"
)
LINES = f"{EVIL}\nstatus     completed\nid\tspoofed"
FILE = """
from durable_monty import function, workflow

@function
def refuse(text: str) -> str:
    raise ValueError(text)

@workflow
async def says(text: str) -> str:
    print(text)
    return text

@workflow
async def fails(text: str) -> str:
    print(text)
    return await refuse(text)
"""


@function
def complains(text: str) -> str:
    raise LookupError(text)


@pytest.fixture
def logging_as_before():
    """The commands set up logging for their process, which is the tests' own here."""
    loggers = [logging.getLogger(name) for name in (None, "durable_monty", "durable_monty.prints")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def shown(tmp_path, logging_as_before):
    """What a command prints, checked; gives its output."""

    def run(*arguments, code=0, needs="red"):
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == code, done.output
        assert needs in done.output
        assert not OBEYED.search(done.output), repr(OBEYED.search(done.output))
        return done.output

    return run


@pytest.fixture
def ids(tmp_path):
    """Executions that say it everywhere; their ids by status."""
    (tmp_path / "durable-monty.toml").write_text(f'[routes]\n{json.dumps("x" + EVIL)} = "local"\n')
    found = {}
    with OrchestratorService(init_db("sqlite:///durable-monty.db", synchronous="NORMAL"), Config()) as service:
        options = {"inputs": {"t": LINES}, "tags": {EVIL[:100]: LINES[:150]}, "memo": {LINES: LINES}, "filename": LINES}
        flow = "from durable_monty.flow import emit, publish, signal\npublish(t[:150], t)\nemit(t[:150], t)\nprint(t)\n"
        found["completed"] = service.start_execution(f"{flow}t", **options)
        found["failed"] = service.start_execution(f"{flow}await complains(t)", [complains], **options)
        found["raised"] = service.start_execution("raise ValueError(t)", check=False, **options)
        found["waiting"] = service.start_execution(f"{flow}await signal(t[:150], timeout_seconds=3600)", **options)
        worker = Worker(service, poll_interval=0.05)
        worker.run_until(lambda: service.get_execution(found["waiting"])["status"] == "waiting")
        worker.run_until(
            lambda: all(service.get_execution(found[key])["status"] == key for key in ("failed", "completed"))
        )
        worker.stop(0)
        found["paused"] = service.start_execution("await complains(t)", [complains], **options)
        service.pause(found["paused"], LINES)
        found["cancelled"] = service.start_execution("await complains(t)", [complains], **options)
        service.cancel(found["cancelled"], LINES)
        service.create_schedule(
            "nightly", "await complains(t)", cron="0 3 * * *", inputs={"t": LINES}, filename=LINES,
            external_functions=[complains],
        )  # fmt: skip
    return found


def test_every_listing_shows_it_in_one_line(shown, ids):
    assert len(shown("list").splitlines()) == len(ids) + 1
    assert len(shown("schedule", "list", needs="nightly").splitlines()) == 2
    for status, id_ in ids.items():
        output = shown("show", id_)
        # Nothing that a user's text holds passes for a line of ours.
        assert len(re.findall("^status ", output.partition("\n\n")[0], re.MULTILINE)) == 1, status
    assert len(shown("published", ids["completed"]).splitlines()) == 2


def test_results_and_errors_and_streams(shown, ids):
    assert json.loads(shown("result", ids["completed"])) == LINES
    for status in ("failed", "raised", "paused"):
        shown("result", ids[status], code=1)
    shown("result", ids["cancelled"], code=1, needs="cancelled")
    stream = LINES[:150]
    assert json.loads(shown("stream", ids["completed"], stream)) == LINES
    assert json.loads(shown("published", ids["completed"], stream)) == LINES
    shown("published", ids["completed"], EVIL, code=1)
    shown("show", EVIL, code=2)
    shown("signal", ids["completed"], EVIL[:100], code=1)
    shown("list", "--tag", EVIL.replace("=", ""), code=2)
    shown("list", "--before", EVIL, code=2)
    shown("config", "show")
    shown("executors", "list", needs="local")


def test_json_is_escaped_and_says_the_same(shown, ids):
    listed = json.loads(shown("list", "--json"))
    assert {item["memo"][LINES] for item in listed} == {LINES}
    found = json.loads(shown("show", ids["failed"], "--json"))
    assert LINES in found["error"]
    assert found["inputs"] == {"t": LINES}
    assert json.loads(shown("schedule", "list", "--json"))[0]["inputs"] == {"t": LINES}
    assert json.loads(shown("published", ids["completed"], "--json")) == {LINES[:150]: LINES}


def test_what_a_workflow_prints_and_how_it_ends(shown, tmp_path):
    (tmp_path / "shop.py").write_text(FILE)
    given = f"text={json.dumps(LINES)}"
    output = shown("run", "shop.py:says", "--input", given)
    assert output.count("red") == 2, "printed and returned"
    assert "status     completed\n" in output, "line ends are kept in a text of more than one line"
    output = shown("-v", "run", "shop.py:fails", "--input", given, code=1)
    assert "ValueError" in output


@pytest.mark.parametrize(
    "character", [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066", "\u2028"]
)
def test_each_control_character_stands_as_an_escape(character):
    kept = character in "\n\t"
    assert (visible(character) == character) is kept
    assert not OBEYED.search(visible(character, is_line=True) + json_text(character))
    assert visible(character, is_line=True) not in ("\n", "\t")
    assert json.loads(json_text({character: character})) == {character: character}

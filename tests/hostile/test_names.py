"""A name is text: it comes back as it was on each kind of database, or is refused in clear words before one sees it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path, PurePath

import pytest

from durable_monty import (
    ConfigError,
    DurableMontyError,
    ExecutionNotFound,
    FunctionError,
    OrchestratorService,
    Worker,
    init_db,
)
from durable_monty.config import Config, load
from durable_monty.functions import get_function
from hostile.names import NAMES
from support import functions as host

ADD = "await add(1, 2)"
WAITS = "from durable_monty.flow import signal\nawait signal(name)"
# What is said by an error whose cause is found before the database is asked.
CLEAR = (ValueError, DurableMontyError)


def is_clear(error):
    """Whether an error is one of ours, and not what a database or a driver says."""
    text = str(error)
    return isinstance(error, CLEAR) and "working on the database" not in text and "codec can't" not in text


# What a database has most trouble with; the others are tried on PostgreSQL by `nox -s thorough`.
HARDEST = ("ends the statement", "placeholder", "null character", "long", "right to left", "lone surrogate")
ON_EACH_DATABASE = pytest.mark.parametrize(
    ("service", "name"),
    [
        pytest.param(kind, name, marks=[pytest.mark.thorough] if kind == "postgresql" and name not in HARDEST else [])
        for kind in ("sqlite", "postgresql")
        for name in NAMES
    ],
    indirect=["service"],
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request, tmp_path_factory):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('names') / 'names.db'}"
        with OrchestratorService(init_db(url, synchronous="NORMAL"), Config()) as opened:
            yield opened
        return
    from support import servers

    server = request.getfixturevalue("postgresql_server")
    url = servers.new_database(server, "hostile_names")
    with OrchestratorService(init_db(url, synchronous="NORMAL"), Config()) as opened:
        yield opened
    servers.drop_database(server, "hostile_names")


def keeps(use):
    """What `use` gives; None if it was refused in clear words."""
    try:
        return use()
    except CLEAR as error:
        if not is_clear(error):
            raise
        return None


@ON_EACH_DATABASE
def test_what_an_execution_is_started_with_comes_back(service, name):
    text = NAMES[name]

    def start(**options):
        id_ = service.start_execution(ADD, [host.add], check=False, **options)
        return service.get_execution(id_)

    found = keeps(lambda: start(execution_id=text))
    assert found is None or found["execution_id"] == text
    found = keeps(lambda: start(tags={text: "v", "n": text or "-"}))
    assert found is None or found["tags"] == {text: "v", "n": text or "-"}
    if found is not None:
        listed = service.list_executions(tags={text: "v"})
        assert [item["execution_id"] for item in listed] == [found["execution_id"]]
        assert service.list_executions(tags={"n": text}) == listed
    found = keeps(lambda: start(memo={text: [text]}))
    assert found is None or found["memo"] == {text: [text]}
    found = keeps(lambda: start(filename=text))
    if found is not None:
        listed = service.list_executions(workflow=PurePath(text).stem, limit=10_000)
        assert found["execution_id"] in [item["execution_id"] for item in listed]
    for key in ("singleton_key", "debounce_key"):
        first = keeps(lambda: start(**{key: text, "delay_seconds": 1000}))  # noqa: B023
        if first is not None:
            assert start(**{key: text, "delay_seconds": 1000})["execution_id"] == first["execution_id"]
    found = keeps(
        lambda: service.start_execution("await identity(x)", [host.identity], {"x": {text: text}}, check=False)
    )
    if found is not None:
        assert service.get_execution(found)["inputs"] == {"x": {text: text}}


@ON_EACH_DATABASE
def test_what_does_not_exist_is_not_found(service, name):
    text = NAMES[name]
    service.start_execution(ADD, [host.add], execution_id="there")
    asked = (
        service.get_execution,
        service.get_result,
        service.cancel,
        service.pause,
        service.resume,
        service.retry,
        service.published,
        service.process_execution,
        service.poll,
        service.get_pending_calls,
        lambda id_: service.wait(id_, 0.01),
        lambda id_: service.signal(id_, "go"),
        lambda id_: service.complete_call(id_, 0, 1),
        lambda id_: service.read_stream(id_, "s"),
        service.delete_schedule,
        service.pause_schedule,
        service.resume_schedule,
    )
    for ask in asked:
        with pytest.raises(CLEAR) as raised:
            ask(text)
        assert is_clear(raised.value), raised.value
    with pytest.raises(ExecutionNotFound):
        service.get_execution(text)
    assert service.list_executions(workflow=f"{text} that there is not") == []
    assert keeps(lambda: service.list_executions(before=text)) in (None, [])
    assert keeps(lambda: service.published("there", text)) is None
    assert keeps(lambda: service.read_stream("there", text)) in (None, [])
    assert service.get_execution("there")["status"] == "scheduled"


@ON_EACH_DATABASE
def test_reasons_come_back(service, name):
    text = NAMES[name]
    shown = text.replace("\0", "\\x00").replace("\ud800", "\\ud800")
    id_ = service.start_execution(ADD, [host.add])
    service.pause(id_, text)
    assert service.get_execution(id_)["note"] == (shown or None)
    id_ = service.start_execution(ADD, [host.add])
    service.cancel(id_, text)
    assert service.runtime.store.execution(id_).cancel_reason == (shown or "cancelled on request")


@ON_EACH_DATABASE
def test_a_schedule_is_named_as_it_says(service, name):
    text = NAMES[name]
    if keeps(lambda: service.create_schedule(text, ADD, interval_seconds=9e6, external_functions=[host.add]) or True):
        assert text in [item["name"] for item in service.list_schedules()]
        service.delete_schedule(text)


def test_signals_keys_and_streams_are_named_as_they_say(service):
    """Those that can be are: the workflow gets what was sent under its name, and no other."""
    sent = {name: text for name, text in NAMES.items() if text and "\0" not in text and len(text) <= 200}
    sent.pop("lone surrogate")
    source = (
        "from durable_monty.flow import emit, publish, signal\n"
        "publish(name, name)\nemit(name, name)\nawait signal(name, timeout_seconds=60)"
    )
    ids = {}
    for name, text in sent.items():
        ids[name] = service.start_execution(source, inputs={"name": text})
        service.signal(ids[name], text, f"for {name}")
        service.signal(ids[name], "another", "for nobody")
    refused = {
        name: service.start_execution(source, inputs={"name": NAMES[name]})
        for name in ("null character", "long", "empty")
    }
    for execution in service.list_executions(status="scheduled", limit=10_000):
        if execution["execution_id"] not in (*ids.values(), *refused.values()):
            service.cancel(execution["execution_id"])
    Worker(service, poll_interval=0.05).run(until_complete=True)
    for name, id_ in ids.items():
        assert service.get_result(id_) == f"for {name}"
        assert service.published(id_) == {sent[name]: sent[name]}
        assert service.read_stream(id_, sent[name]) == [(0, sent[name])]
    for name, id_ in refused.items():
        assert "ValueError: publish() key" in service.get_execution(id_)["error"]
        with pytest.raises(CLEAR) as raised:
            service.signal(id_, NAMES[name])
        assert is_clear(raised.value)
    for number in (-1, 10**30, "0", None):
        with pytest.raises(CLEAR) as raised:
            service.complete_call(ids["blank"], number, 1)
        assert is_clear(raised.value)
    live = service.start_execution(WAITS, inputs={"name": "x"})
    with pytest.raises(CLEAR) as raised:
        service.signal(live, NAMES["lone surrogate"])
    assert is_clear(raised.value)


@ON_EACH_DATABASE
def test_what_is_archived_is_a_line_of_its_own(service, tmp_path, name):
    """Nothing of an execution names a file: it all goes into the one that was named."""
    id_ = keeps(lambda: service.start_execution(ADD, [host.add], tags={"n": NAMES[name]}, memo={"m": NAMES[name]}))
    if id_ is not None:
        service.cancel(id_, NAMES[name])
        service.delete_ended(0, archive=tmp_path / "archive.jsonl")
        lines = [json.loads(line) for line in (tmp_path / "archive.jsonl").read_text().split("\n") if line]
        assert NAMES[name] in [line["tags"].get("n") for line in lines]
    assert {path.name for path in tmp_path.iterdir()} <= {"archive.jsonl"}


def test_nothing_was_written_where_a_name_points():
    assert not (Path(tempfile.gettempdir()) / "escaped").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_function_or_an_executor_of_such_a_name_is_refused(name, tmp_path):
    text = NAMES[name]
    for path in (text, f"{text}.f", f"os.{text}", f"support.functions:{text}"):
        with pytest.raises((FunctionError, ValueError)):
            get_function(path)
    with pytest.raises(ValueError, match="executor"):
        Config.model_validate({"executor": text})
    with pytest.raises(ValueError, match="executors"):
        Config.model_validate({"executors": {text: {"plugin": "local"}}})
    file = tmp_path / "durable-monty.toml"
    file.write_bytes(f"{json.dumps(text)} = 1\n".encode(errors="surrogatepass"))
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert str(file) in str(raised.value)

"""Observers are told of everything that becomes durable, once and in order, and never hold anything up."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from durable_monty import Accepted, Capabilities, ConfigError, OrchestratorService, PluginError, Worker, init_db
from durable_monty import observers as observing
from durable_monty.config import Config, json_schema, load
from durable_monty.hookspecs import hookimpl as executor_hook
from durable_monty.observers import Observers, wrap
from durable_monty.observerspecs import ExecutionStarted, ObserverSpec, WorkerInfo, hookimpl
from support import children
from support import functions as host
from support.recording import Recorder
from support.workers import eventually, running

WORKER = WorkerInfo("w", dict, lambda: 0)


def started(number):
    return ExecutionStarted(f"e{number}", "w", 1.0, 0.0)


def run(service, *observers):
    Worker(service, observers=observers).run(until_complete=True)


def test_a_mixed_run_is_told_once_and_in_order(service):
    """Success, retry, failure, a child and a cancellation, all at the same time."""
    plain = service.start_execution("await add(await add(1, 2), 3)", [host.add])
    retried = service.start_execution("await fail_until_third()", [host.fail_until_third])
    failed = service.start_execution("await fail('ValueError', 'no')", [host.fail])
    parent = service.start_execution(children.family, inputs={"values": [5]}, execution_id="parent")
    cancelled = service.start_execution("await nap(3600)", [host.nap])
    recorder = Recorder()
    worker = Worker(service, observers=[recorder])
    with running(worker):
        eventually(lambda: recorder.of(cancelled)[-1:] == [("submitted", 0, 1)])
        service.cancel(cancelled)
        for execution_id in (plain, retried, failed, parent, cancelled):
            service.wait(execution_id, 30)
    assert recorder.of(plain) == [
        ("started",),
        ("submitted", 0, 1),
        ("settled", 0, 1, "completed"),
        ("submitted", 1, 1),
        ("settled", 1, 1, "completed"),
        ("ended", "completed"),
    ]
    assert recorder.of(retried) == [
        ("started",),
        ("submitted", 0, 1),
        ("retried", 0, 1),
        ("submitted", 0, 2),
        ("retried", 0, 2),
        ("submitted", 0, 3),
        ("settled", 0, 3, "completed"),
        ("ended", "completed"),
    ]
    assert recorder.of(failed) == [
        ("started",),
        ("submitted", 0, 1),
        ("settled", 0, 1, "failed"),
        ("ended", "failed"),
    ]
    # A child is an execution; its parent's call for it is not one of a host function.
    assert recorder.of(parent) == [("started",), ("ended", "completed")]
    assert recorder.of("parent-0") == [
        ("started",),
        ("submitted", 0, 1),
        ("settled", 0, 1, "completed"),
        ("ended", "completed"),
    ]
    assert recorder.of(cancelled) == [
        ("started",),
        ("submitted", 0, 1),
        ("settled", 0, 1, "cancelled"),
        ("ended", "cancelled"),
    ]
    assert (recorder.told[0][0], recorder.told[-1][0]) == ("worker_started", "worker_stopped")
    assert recorder.told[-1][1].dropped() == 0


def test_facts_say_what_they_are_about(lite_service):
    service = lite_service
    parent = service.start_execution(children.family, inputs={"values": [5]}, execution_id="parent")
    failed = service.start_execution(
        "await fail_until_third()\nawait fail('KeyError', 'k')", [host.fail_until_third, host.fail]
    )
    recorder = Recorder()
    run(service, recorder)
    by_id = {fact.execution_id: fact for fact in recorder.facts("ended")}
    child = by_id["parent-0"]
    assert (child.workflow, child.parent, child.error) == ("doubled", parent, None)
    assert child.created_at <= child.started_at <= child.at
    assert by_id[failed].error_type == "KeyError"
    assert "KeyError" in by_id[failed].error
    first, second = recorder.facts("retried")
    assert (first.function, first.executor, first.job_id) == (
        "support.functions.fail_until_third",
        "local",
        f"{failed}-0-1",
    )
    assert (first.failure.kind, first.failure.type, second.failure.message) == ("user", "ConnectionError", "attempt 2")
    assert first.due_at > first.at >= first.created_at
    assert not first.is_lost
    settled = {(fact.execution_id, fact.call_id): fact for fact in recorder.facts("settled")}
    assert settled[failed, 1].failure.type == "KeyError"
    assert settled[failed, 0].failure is None
    assert recorder.facts("submitted")[0].line > 0


def test_the_start_of_an_execution_is_known_at_its_end_in_the_same_worker_and_in_another(lite_service):
    service = lite_service
    execution_id = service.start_execution("await add(1, 2)\nawait identity(1)", [host.add, host.identity])
    service.process_execution(execution_id)
    before = service.get_execution(execution_id)["started_at"]
    recorder = Recorder()
    run(service, recorder)
    (ended,) = recorder.facts("ended")
    assert ended.started_at == before
    assert recorder.facts("started") == [], "that was another worker's"


def test_signals_races_and_calls_that_end_with_their_execution(service):
    code = """
from durable_monty.flow import race, signal
said = await signal("go")
first = await race(nap(0.01, 1), nap(3600, 2))
said, first
"""
    execution_id = service.start_execution(code, [host.nap])
    recorder = Recorder()
    with running(Worker(service, observers=[recorder])):
        eventually(lambda: recorder.facts("suspended"))
        service.signal(execution_id, "go", 1)
        service.wait(execution_id, 30)
    told = recorder.of(execution_id)
    assert told[:2] == [("started",), ("signal", "go")]
    assert sorted(item[-1] for item in told if item[0] == "settled") == ["cancelled", "completed"]
    assert told[-1] == ("ended", "completed")


def test_an_outcome_that_the_function_commits_itself_is_told_once(service):
    """It is in the database before the worker hears of it."""
    ids = [service.start_execution("await connected(1)\nawait connected(2)", [connected]) for _ in range(10)]
    recorder = Recorder()
    run(service, recorder)
    for execution_id in ids:
        assert [item for item in recorder.of(execution_id) if item[0] == "settled"] == [
            ("settled", 0, 1, "completed"),
            ("settled", 1, 1, "completed"),
        ]


def connected(value: int) -> int:
    from sqlalchemy import text

    from durable_monty import current_call

    current_call().connection.execute(text("SELECT 1"))
    return value


class ByHand:
    """Accepts calls, and leaves it to the test to complete them."""

    capabilities = Capabilities(pushes=True, survives_restart=True)

    def __init__(self):
        self.calls = []

    @executor_hook
    def submit(self, calls):
        self.calls += calls
        return [Accepted(call.job_id) for call in calls]

    @executor_hook
    def poll(self):
        return []

    @executor_hook
    def complete(self):
        pass


def test_a_call_that_is_completed_through_the_service_is_told_once(service):
    execution_id = service.start_execution("await identity(1)", [host.identity])
    recorder, executor = Recorder(), ByHand()
    with running(Worker(service, executor, observers=[recorder])):
        eventually(lambda: executor.calls)
        service.complete_call(execution_id, 0, 7)
        service.wait(execution_id, 30)
    assert recorder.of(execution_id) == [
        ("started",),
        ("submitted", 0, 1),
        ("settled", 0, 1, "completed"),
        ("ended", "completed"),
    ]


def test_two_workers_tell_each_fact_once_between_them(database_url):
    config = Config.model_validate({"worker": {"poll_interval_seconds": 0.05}})
    store = init_db(database_url, synchronous="NORMAL")
    one, other = (OrchestratorService(init_db(database_url, synchronous="NORMAL"), config) for _ in range(2))
    recorders = [Recorder(), Recorder()]
    with OrchestratorService(store, config) as service, one, other:
        ids = [service.start_execution("for i in range(5):\n    await add(i, 1)", [host.add]) for _ in range(10)]
        workers = [
            Worker(item, None, 0.05, observers=[found]) for item, found in zip((one, other), recorders, strict=True)
        ]
        with running(*workers):
            for execution_id in ids:
                service.wait(execution_id, 60)
    told = [(name, fact) for recorder in recorders for name, fact in recorder.told]
    assert sorted(fact.execution_id for name, fact in told if name == "started") == sorted(ids)
    assert sorted(fact.execution_id for name, fact in told if name == "ended") == sorted(ids)
    settled = sorted((fact.execution_id, fact.call_id) for name, fact in told if name == "settled")
    assert settled == sorted((execution_id, call_id) for execution_id in ids for call_id in range(5))


def test_what_happens_at_once_comes_in_one_call(lite_service):
    service = lite_service
    for _ in range(50):
        service.start_execution("1 + 1", [])
    recorder = Recorder()
    run(service, recorder)
    assert len(recorder.facts("ended")) == 50
    assert len([size for name, size in recorder.batches if name == "ended"]) < 10


class Broken:
    """Raises in every hook."""

    def __getattr__(self, name):
        raise AttributeError(name)

    @hookimpl
    def calls_settled(self, calls):
        raise RuntimeError("broken calls_settled")

    @hookimpl
    def executions_ended(self, executions):
        raise SystemExit("broken executions_ended")

    @hookimpl
    def trace_contexts(self, calls):
        raise RuntimeError("broken trace_contexts")


def test_an_observer_that_raises_is_logged_once_per_hook_and_others_are_told(lite_service, caplog):
    service = lite_service
    execution_id = service.start_execution("for i in range(5):\n    await add(i, 1)", [host.add])
    recorder = Recorder()
    with caplog.at_level(logging.WARNING, "durable_monty.observers"):
        run(service, Broken(), recorder)
    assert len(recorder.facts("settled")) == 5
    assert recorder.of(execution_id)[-1] == ("ended", "completed")
    logged = [(record.observer, record.hook) for record in caplog.records if record.name == "durable_monty.observers"]
    assert sorted(logged) == [("Broken", "calls_settled"), ("Broken", "executions_ended"), ("Broken", "trace_contexts")]
    assert "broken calls_settled" in caplog.text


class Stuck:
    """Does not return from its first fact until it is let."""

    def __init__(self):
        self.entered = threading.Event()
        self.released = threading.Event()
        self.told = []

    @hookimpl
    def executions_started(self, executions):
        self.entered.set()
        assert self.released.wait(60)
        self.told += executions


def test_a_slow_observer_loses_facts_that_are_counted_and_holds_up_nothing(caplog):
    stuck = Stuck()
    observers = Observers([wrap(stuck)], max_queued=10)
    observers.start(WORKER)
    observers.tell([started(0)])
    assert stuck.entered.wait(30)
    with caplog.at_level(logging.WARNING, "durable_monty.observers"):
        for number in range(1, 26):
            observers.tell([started(number)])
    assert observers.dropped == 15
    assert [record.waiting for record in caplog.records] == [10]
    stuck.released.set()
    observers.stop()
    assert [fact.execution_id for fact in stuck.told] == [f"e{number}" for number in range(11)]


def test_a_worker_ends_although_an_observer_hangs(caplog):
    stuck = Stuck()
    observers = Observers([wrap(stuck)])
    observers.start(WORKER)
    observers.tell([started(0)])
    assert stuck.entered.wait(30)
    observers.tell([started(1), started(2)])
    observers.stop(grace_seconds=0.05)
    assert observers.dropped == 2
    stuck.released.set()


def test_executions_go_on_while_an_observer_hangs(lite_service):
    stuck = Stuck()
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    worker = Worker(lite_service, observers=[stuck])
    with running(worker):
        assert lite_service.wait(execution_id, 30)["status"] == "completed"
        stuck.released.set()


def test_without_observers_there_is_no_thread_and_nobody_is_told(lite_service):
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    names = set()
    worker = Worker(lite_service, on_step=lambda name: names.update(item.name for item in threading.enumerate()))
    worker.run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3
    assert lite_service.runtime.engine.watch is None
    assert names
    assert "durable-monty-observers" not in names


# Finding them

TALLY = """
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from durable_monty.observerspecs import hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    file: str


class Tally:
    Settings = Settings

    def __init__(self, settings):
        self.file = Path(settings.file)

    @hookimpl
    def executions_ended(self, executions):
        with self.file.open("a") as file:
            for execution in executions:
                file.write(f"{execution.status.value}\\n")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution, as pip would have, whose observers are these."""
    made = []

    def install(name, entry_points, source=TALLY):
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[durable_monty.observers]\n{entry_points}\n")
        monkeypatch.syspath_prepend(str(site))
        made.append(name)

    yield install
    for name in made:
        sys.modules.pop(name, None)


def test_an_installed_observer_is_found_and_imported_only_when_it_is_named(install):
    install("acme_tally", "tally = acme_tally:Tally")
    assert "tally" in observing.available()
    assert "acme_tally" not in sys.modules
    assert observing.observer_class("tally").__name__ == "Tally"


def test_observers_of_a_file_are_told_under_as_many_names_as_one_likes(install, tmp_path):
    install("acme_tally", "tally = acme_tally:Tally")
    (tmp_path / "durable-monty.toml").write_text(
        f'observe = ["tally", "other"]\n[observers.tally]\nfile = "{tmp_path}/one"\n'
        f'[observers.other]\nplugin = "tally"\nfile = "{tmp_path}/two"\n[observers.unused]\nplugin = "nowhere"\n'
    )
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), load()) as service:
        service.start_execution("1 + 1", [])
        Worker(service).run(until_complete=True)
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["completed\n", "completed\n"]


def test_an_observer_that_is_not_installed_is_an_error_of_the_configuration(install, tmp_path):
    install("acme_tally", "tally = acme_tally:Tally")
    (tmp_path / "durable-monty.toml").write_text('observe = ["tallly"]\n')
    with pytest.raises(ConfigError) as raised:
        load()
    text = str(raised.value)
    assert "durable-monty.toml: observe names 'tallly', which has no table" in text
    assert "did you mean 'tally'? Else run `pip install durable-monty-tallly`" in text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"plugin": "tally", "fil": "x"}, r"\[observers\.one\] fil: unknown key; did you mean 'file'\?"),
        ({"plugin": "tally"}, r"\[observers\.one\] file: this key is required"),
        (
            {"plugin": "twice"},
            "several installed distributions have a plug-in 'twice': .* remove one, for example `pip uninstall",
        ),
        ({"plugin": "nowhere"}, "no observer 'nowhere' is installed in .*; installed: .*tally"),
        ({"plugin": "gone"}, "its plug-in 'acme_tally:Gone' of acme_tally 1.2 did not load: AttributeError"),
        ({"plugin": "bare"}, "has no class attribute `Settings`"),
        ({"plugin": "silent"}, "implements no hook; mark methods with @hookimpl"),
        ({"plugin": "odd"}, "Argument.*'colour'.* are declared in the hookimpl but can not be found"),
        ({"plugin": "unknown"}, "unknown hook 'executions_exploded'"),
    ],
)
def test_a_broken_observer_is_named_before_anything_runs(install, lite_service, table, message):
    more = """
class Bare:
    pass

class Silent(Tally):
    Settings = type("Empty", (BaseModel,), {})
    executions_ended = None
    def __init__(self, settings):
        pass

class Odd(Silent):
    @hookimpl
    def calls_settled(self, colour):
        pass

class Unknown(Silent):
    @hookimpl
    def executions_exploded(self):
        pass
"""
    names = "".join(
        f"{name.lower()} = acme_tally:{name}\n" for name in ("Tally", "Gone", "Bare", "Silent", "Odd", "Unknown")
    )
    install("acme_tally", f"{names}twice = acme_tally:Tally", TALLY + more)
    install("acme_other", "twice = acme_other:Tally")
    config = Config.model_validate({"observe": ["one"], "observers": {"one": table}})
    with (
        OrchestratorService(lite_service.runtime.store, config) as service,
        pytest.raises((ConfigError, PluginError), match=message),
    ):
        Worker(service).run(once=True)


def test_settings_of_observers_are_in_the_schema_of_the_file(install):
    install("acme_tally", "tally = acme_tally:Tally")
    schema = json_schema({}, {"tally": observing.observer_class("tally").Settings})
    assert set(schema["properties"]["observers"]["properties"]["tally"]["properties"]) == {"plugin", "file"}


def test_every_hook_says_when_it_is_called_and_what_is_durable_by_then():
    """As the hooks of executors do."""
    hooks = [item for name, item in vars(ObserverSpec).items() if not name.startswith("_")]
    assert len(hooks) == 10
    for hook in hooks:
        assert "Called by: " in hook.__doc__, hook.__name__
        assert "Durable by then: " in hook.__doc__, hook.__name__


# Trace contexts


class Tracing:
    @hookimpl
    def trace_contexts(self, calls):
        return {call.job_id: f"00-{'1' * 32}-{call.attempt:016x}-01" for call in calls if "trace" in call.function}


def test_a_trace_context_travels_to_the_function(lite_service):
    execution_id = lite_service.start_execution("await trace_context()", [host.trace_context])
    run(lite_service, Recorder(), Tracing())
    assert lite_service.get_result(execution_id) == f"00-{'1' * 32}-{1:016x}-01"


def test_without_an_observer_that_gives_one_there_is_none(lite_service):
    execution_id = lite_service.start_execution("await trace_context()", [host.trace_context])
    run(lite_service, Recorder())
    assert lite_service.get_result(execution_id) is None


def test_contexts_that_are_none_are_left_out():
    class Odd:
        @hookimpl
        def trace_contexts(self, calls):
            return {"a": 1, "b": "", "c": "x" * 513, "d": "ok"}

    class Odder:
        @hookimpl
        def trace_contexts(self, calls):
            return ["d"]

    assert Observers([wrap(Odder()), wrap(Odd())]).trace_contexts([]) == {"d": "ok"}

"""The worker: stopping, sharing a database, choosing executors, attempts, and a third party's plug-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, PluginError, Worker, init_db, plugins
from durable_monty.config import Config
from durable_monty.models import Failure
from support import functions as host
from support.workers import DEADLINE_SECONDS, eventually, running

TESTS = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS)}


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_process_and_its_local_job_is_given_back_as_the_same_attempt(tmp_path, number):
    """A deployment restarts workers all day: that must cost neither a lease's time nor one of the call's attempts."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    service = OrchestratorService(init_db(url), Config())
    begun, release = tmp_path / "begun", tmp_path / "release"
    inputs = {"begun": str(begun), "release": str(release)}
    execution_id = service.start_execution("await hold(begun, release)", [host.hold], inputs)
    settings = {"DURABLE_MONTY_STORE__URL": url, "DURABLE_MONTY_WORKER__STOP_GRACE_SECONDS": "0"}
    command = [Path(sys.executable).parent / "durable-monty", "worker"]
    process = subprocess.Popen(command, env=ENVIRONMENT | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    eventually(begun.exists)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, printed) == (0, b"")
    (row,) = service.runtime.store.calls(execution_id)
    assert (row.status, row.attempt, row.lost) == ("pending", 1, 0)
    release.touch()
    Worker(service).run(until_complete=True)
    assert service.get_result(execution_id) == 1
    assert begun.read_text().split() == ["1", "1"], "it ran twice, both times as attempt 1"
    service.close()


def test_a_job_that_ends_within_the_grace_is_recorded(lite_service, tmp_path):
    begun, release = tmp_path / "begun", tmp_path / "release"
    inputs = {"begun": str(begun), "release": str(release)}
    execution_id = lite_service.start_execution("await hold(begun, release)", [host.hold], inputs)
    worker = Worker(lite_service)
    thread = threading.Thread(target=worker.run)
    thread.start()
    eventually(begun.exists)
    worker.stop(grace_seconds=DEADLINE_SECONDS)
    release.touch()
    thread.join(DEADLINE_SECONDS)
    (row,) = lite_service.runtime.store.calls(execution_id)
    assert (row.status, row.outcome) == ("completed", "1")
    lite_service.process_execution(execution_id)
    assert lite_service.get_result(execution_id) == 1


def test_a_worker_may_run_again_after_it_was_stopped(lite_service):
    worker = Worker(lite_service, poll_interval=3600)
    with running(worker):
        eventually(lambda: lite_service.runtime.has_worker)
    execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
    worker.run(until_complete=True)
    assert lite_service.get_result(execution_id) == 3


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_poll_interval_that_is_no_time_is_refused(lite_service, seconds):
    with pytest.raises(ValueError, match=f"poll_interval is {seconds}.*more than 0 seconds"):
        Worker(lite_service, poll_interval=seconds)


# Several processes


def test_two_workers_share_a_database_and_run_every_call_once(database_url, tmp_path):
    services = [OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config()) for _ in range(2)]
    path = tmp_path / "notes.txt"
    code = "from asyncio import gather\nawait gather(*[note(path, f'{name}.{i}') for i in range(3)])"
    names = [f"e{number}" for number in range(20)]
    for name in names:
        services[0].start_execution(code, [host.note], {"path": str(path), "name": name}, execution_id=name)
    with running(*[Worker(service, poll_interval=0.05) for service in services]):
        for name in names:
            assert services[0].wait(name, DEADLINE_SECONDS)["status"] == "completed"
    assert sorted(path.read_text().split()) == sorted(f"{name}.{i}" for name in names for i in range(3))
    for service in services:
        service.close()


START = """
import sys
from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config
from support import functions as host
with OrchestratorService(init_db(sys.argv[1]), Config()) as service:
    service.start_execution("await add(1, 2)", [host.add], execution_id="from-elsewhere")
"""


def test_an_idle_worker_takes_up_what_another_process_starts(service):
    """With a poll interval of an hour: it is told, or it sees that the file has changed."""
    with running(Worker(service, poll_interval=3600)):
        eventually(lambda: service.runtime.has_worker)
        command = [sys.executable, "-c", START, service.runtime.store.url]
        subprocess.run(command, env=ENVIRONMENT, check=True, timeout=DEADLINE_SECONDS)
        assert service.wait("from-elsewhere", DEADLINE_SECONDS)["output"] == 3


def test_a_timer_of_an_execution_that_another_process_started_wakes_the_worker(database_url):
    """The only thing to wait for is a time, and the process that stored it is gone."""
    with OrchestratorService(init_db(database_url), Config()) as first:
        first.start_execution("import asyncio\nawait asyncio.sleep(0.3)\n'awake'", execution_id="e")
        first.process_execution("e")
    with OrchestratorService(init_db(database_url), Config()) as second:
        Worker(second, poll_interval=3600).run(until_complete=True)
        assert second.get_result("e") == "awake"


# Choosing an executor


def test_a_worker_with_an_executor_that_is_not_installed_refuses_to_start(lite_service):
    lite_service.start_execution("await add(1, 2)", [host.add], execution_id="e")
    with pytest.raises(PluginError, match=r"executor 'nonsense': .*installed: .*local.*pip install") as raised:
        Worker(lite_service, "nonsense").run(once=True)
    assert "durable-monty-nonsense" in str(raised.value)
    assert lite_service.get_execution("e")["status"] == "scheduled"


def test_an_object_that_is_no_executor_is_refused_with_what_it_lacks(lite_service):
    with pytest.raises(PluginError, match="it has no submit_call and no get_stats; derive it from"):
        Worker(lite_service, object()).run(once=True)


def test_a_call_for_an_executor_that_is_not_installed_stays_pending_and_holds_up_no_other(tmp_path, caplog):
    routes = {"routes": {"support.functions.identity": "elsewhere"}}
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), Config.model_validate(routes)) as service:
        stuck = service.start_execution("await identity(1)", [host.identity])
        healthy = service.start_execution("await add(1, 2)", [host.add])
        Worker(service).run_until(lambda: service.get_execution(healthy)["status"] == "completed")
        (row,) = service.runtime.store.calls(stuck)
        assert (row.status, row.attempt) == ("pending", 1)
    assert "executor 'elsewhere'" in caplog.text
    assert "its calls stay pending" in caplog.text


# Attempts


def test_the_wait_before_the_next_attempt_grows_as_the_function_says(service):
    retry = {"attempts": 4, "first_delay_seconds": 10, "factor": 3, "max_delay_seconds": 50, "jitter": 0}
    config = Config.model_validate({"function": {"support.functions.add": {"retry": retry}}})
    own = OrchestratorService(service.runtime.store, config)
    execution_id = own.start_execution("await add(1, 2)", [host.add])
    own.process_execution(execution_id)
    waits = []
    for attempt in (1, 2, 3):
        own.fail_call(execution_id, 0, ConnectionError("away"), attempt=attempt)
        failed_at = own.runtime.store.failed_attempts(execution_id)[-1][2]
        waits.append(own.runtime.store.call(execution_id, 0).due_at - failed_at)
    assert waits == pytest.approx([10, 30, 50])
    own.fail_call(execution_id, 0, ConnectionError("away for good"))
    assert "away for good" in own.process_execution(execution_id)["error"]


def test_an_exception_that_the_policy_does_not_name_is_not_tried_again(lite_service):
    config = Config.model_validate({"function": {"support.functions.add": {"retry": {"on": ["OSError"]}}}})
    own = OrchestratorService(lite_service.runtime.store, config)
    for error, attempts in ((ConnectionError("away"), 2), (ValueError("no"), 1)):
        execution_id = own.start_execution("await add(1, 2)", [host.add])
        own.process_execution(execution_id)
        own.fail_call(execution_id, 0, error)
        assert own.runtime.store.call(execution_id, 0).attempt == attempts


def test_a_call_that_is_lost_again_and_again_is_raised_in_the_workflow(lite_service):
    code = "try:\n    await add(1, 2)\nexcept RuntimeError as e:\n    found = str(e)\nfound"
    execution_id = lite_service.start_execution(code, [host.add])
    lite_service.process_execution(execution_id)
    lost = 0
    while lite_service.get_pending_calls(execution_id):
        lite_service.fail_call(execution_id, 0, Failure("lost", "Lost", "the machine is gone"))
        lost += 1
    lite_service.process_execution(execution_id)
    assert lite_service.get_result(execution_id) == "lost: the machine is gone"
    assert lost == 10


# A third party's plug-in

ACME = """
from durable_monty import Accepted, Capabilities, Outcome, remote
from durable_monty.hookspecs import hookimpl
from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ledger: str


class AcmeExecutor:
    Settings = Settings
    capabilities = Capabilities(poll_interval_seconds=0.01)

    def __init__(self, settings):
        self.settings = settings
        self.outcomes = []

    @hookimpl
    def start(self, context):
        self.name = context.executor_name

    @hookimpl
    def submit(self, calls):
        with open(self.settings.ledger, "a") as ledger:
            for call in calls:
                ledger.write(f"{self.name} {call.function_name}\\n")
        self.outcomes += [Outcome(call.job_id, reply=remote.run(call.envelope)) for call in calls]
        return [Accepted(call.job_id) for call in calls]

    @hookimpl
    def poll(self, jobs):
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    @hookimpl
    def complete(self, jobs):
        pass
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """A distribution `acme-durable`, as pip would have installed it, whose executor plug-in is called `acme`."""
    site = tmp_path / "site"
    info = site / "acme_durable-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "acme_durable.py").write_text(ACME)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-durable\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[durable_monty.executors]\nacme = acme_durable:AcmeExecutor\n")
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("acme_durable", None)


@pytest.mark.usefixtures("acme")
def test_a_third_partys_plug_in_is_found_by_its_entry_point_and_imported_when_it_is_named():
    found = plugins.available()["acme"]
    assert (found.distribution, found.version) == ("acme-durable", "1.2")
    assert "acme_durable" not in sys.modules
    assert plugins.plugin_class("acme").__name__ == "AcmeExecutor"


@pytest.mark.usefixtures("acme")
def test_a_third_partys_plug_in_runs_calls_under_as_many_names_as_one_likes(tmp_path):
    table = {"plugin": "acme", "ledger": str(tmp_path / "ledger.txt")}
    config = {
        "executor": "small",
        "executors": {"small": table, "large": table},
        "routes": {"support.functions.identity": "large"},
    }
    with OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), Config.model_validate(config)) as service:
        code = "a = await add(1, 2)\nawait identity(a)"
        execution_id = service.start_execution(code, [host.add, host.identity])
        Worker(service).run(until_complete=True)
        assert service.get_result(execution_id) == 3
    lines = (tmp_path / "ledger.txt").read_text().splitlines()
    assert lines == ["small support.functions.add", "large support.functions.identity"]


@pytest.mark.usefixtures("acme")
def test_a_setting_that_a_third_partys_plug_in_lacks_is_named_with_its_table(tmp_path):
    config = Config.model_validate({"executor": "acme", "executors": {"acme": {"ledgr": "x"}}})
    with (
        OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), config) as service,
        pytest.raises(ValueError, match=r"executors\.acme") as raised,
    ):
        Worker(service).run(once=True)
    assert "ledgr: unknown key; did you mean 'ledger'?" in str(raised.value)

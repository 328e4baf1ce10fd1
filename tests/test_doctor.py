"""`diagnose` and `durable-monty doctor`: every kind of execution that does not go on, and those that do."""

from __future__ import annotations

import inspect
import json
import re
import struct
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from durable_monty import OrchestratorService, Retry, Worker, causes, doctor, function, init_db
from durable_monty.cli import main
from durable_monty.config import Config
from durable_monty.errors import PayloadUnreadable
from durable_monty.identity import new_identity
from durable_monty.models import Refused
from durable_monty.sealing import seal, unseal
from durable_monty.store import examining
from support import functions as host
from support.scripted import Scripted

SLEEP = "from asyncio import sleep\nawait sleep({seconds})"
SIGNAL = "from durable_monty.flow import signal\nawait signal('approved')"
CALL = "await add(1, 2)"
DAY = 86_400
LATE = 400
"""More than what workers may be late by default, much less than what people may take."""


@function(retry=Retry(attempts=50, first_delay_seconds=5000, max_delay_seconds=9000))
def flaky() -> None:
    """Tried again for hours."""


@function(retry=Retry(attempts=50, first_delay_seconds=1, max_delay_seconds=1))
def hasty() -> None:
    """Tried again at once."""


@function(concurrency=1)
def alone(name: str) -> str:
    return name


@function(total_timeout_seconds=60)
def limited() -> None:
    """Has a minute for all attempts."""


class Patient:
    """A service whose clock is put forward."""

    def __init__(self, url, config):
        self.passed = 0.0
        self.service = OrchestratorService(
            init_db(url, synchronous="NORMAL"), config, clock=lambda: time.time() + self.passed
        )
        self.store = self.service.runtime.store

    def begin(self, code, functions=(), **options):
        """Start an execution and bring it to its first wait."""
        execution_id = self.service.start_execution(code, functions, check=False, **options)
        self.service.process_execution(execution_id)
        return execution_id

    def wait(self, seconds, *, has_worker=True):
        """Let time pass; then a worker is alive, or none is."""
        self.passed += seconds
        if has_worker:
            self.service.runtime.lease.renew()

    def now(self):
        return self.service.runtime.clock()

    def kinds(self, **options):
        """The kind of each execution that is found."""
        found = self.service.diagnose(**options)
        return {stuck.execution_id: stuck.kind for item in found for stuck in item.executions}

    def only(self, **options):
        """The one reason that is found, with its one execution."""
        (found,) = self.service.diagnose(**options)
        assert found.count == len(found.executions) == 1
        return found, found.executions[0]

    def claim_calls(self, executor="local"):
        """A worker takes what is pending and does nothing with it."""
        worker = self.service.runtime.lease.worker
        claimed = self.store.claim_calls(worker, executor, self.now(), 100)
        return claimed + self.store.limits.claim(worker, executor, self.now(), 100).calls

    def change(self, statement, **parameters):
        """A fault that is put into the database."""
        with self.store._connections.write() as connection:
            assert connection.execute(text(statement), parameters).rowcount == 1


@pytest.fixture
def open_patient(tmp_path):
    opened = []

    def open_(config=None, url=None):
        opened.append(Patient(url or f"sqlite:///{tmp_path / 'doctor.db'}", config or Config()))
        return opened[-1]

    yield open_
    for item in opened:
        item.service.close()


@pytest.fixture
def patient(open_patient):
    return open_patient()


@pytest.fixture
def any_patient(open_patient, database_url):
    """On each kind of database."""
    return open_patient(url=database_url)


def test_what_sleeps_runs_or_waits_its_time_is_healthy(any_patient):
    """On both databases; a worker is alive, and nothing is late."""
    patient = any_patient
    patient.service.start_execution(CALL, [host.add], delay_seconds=30 * DAY)
    patient.begin(SLEEP.format(seconds=30 * DAY))
    patient.begin(
        f"from asyncio import gather, sleep\n{SIGNAL.splitlines()[0]}\nawait gather(signal('x'), sleep({9 * DAY}))"
    )
    patient.wait(2 * DAY)
    patient.begin(SIGNAL)
    patient.begin(CALL, [host.add])
    patient.claim_calls()
    patient.wait(LATE)
    patient.service.start_execution(CALL, [host.add])
    patient.begin(CALL, [host.add])
    assert patient.service.diagnose() == []


def test_the_commonest_kinds_on_both_databases(any_patient):
    patient = any_patient
    paused = patient.begin(SLEEP.format(seconds=5 * DAY))
    patient.service.pause(paused, "looking into it")
    waits = patient.begin(SIGNAL)
    scheduled = patient.service.start_execution("1", [])
    pending = patient.begin(CALL, [host.add])
    held = patient.service.start_execution("2", [])
    assert patient.store.claim("a-program", patient.now(), 1, [held])
    patient.begin(SLEEP.format(seconds=5 * DAY))
    patient.wait(2 * DAY)
    assert patient.kinds() == {
        paused: "paused", waits: "signal", scheduled: "unattended", pending: "untaken", held: "held"
    }  # fmt: skip
    patient.service.runtime.lease.end()
    assert patient.kinds() == {
        paused: "paused", waits: "signal", scheduled: "no-worker", pending: "no-worker", held: "no-worker"
    }  # fmt: skip


def test_no_worker_is_alive(patient):
    """Neither one that has not begun nor a call that waits goes on, and the end of the last lease is said."""
    patient.service.runtime.lease.renew()
    due = patient.service.start_execution("1", [])
    called = patient.begin(CALL, [host.add])
    patient.wait(LATE, has_worker=False)
    (found,) = patient.service.diagnose()
    assert (found.kind, found.count) == ("no-worker", 2)
    assert "the lease of the last one ended at" in found.explanation
    assert "durable-monty worker" in found.remedy
    assert {item.execution_id: (item.call_id, item.line) for item in found.executions} == {
        due: (None, None),
        called: (0, 1),
    }


def test_jobs_of_a_worker_that_is_gone_wait_for_another_worker(patient):
    patient.service.runtime.lease.renew()
    patient.begin(CALL, [host.add])
    patient.claim_calls()
    patient.wait(LATE, has_worker=False)
    assert patient.only()[0].kind == "no-worker"


def test_a_worker_takes_what_had_no_worker_and_then_nothing_is_stuck(patient):
    patient.begin(CALL, [host.add])
    patient.wait(LATE, has_worker=False)
    assert patient.only()[0].kind == "no-worker"
    Worker(patient.service).run(until_complete=True)
    assert patient.service.diagnose() == []


@pytest.mark.parametrize(
    ("executors", "words"),
    [
        pytest.param({}, "pip install durable-monty-elsewhere", id="not installed"),
        pytest.param({"elsewhere": {"plugin": "local", "thraeds": 3}}, "thraeds", id="wrong settings"),
        pytest.param(
            {"elsewhere": {"plugin": "rq", "redis_url": "redis://127.0.0.1:1/0"}}, "127.0.0.1:1", id="check fails"
        ),
    ],
)
def test_the_executor_of_its_calls_cannot_work(open_patient, executors, words):
    patient = open_patient(Config.model_validate({"executor": "elsewhere", "executors": executors}))
    execution_id = patient.begin(CALL, [host.add])
    patient.wait(LATE)
    found, stuck = patient.only()
    assert (found.kind, found.subject, stuck.execution_id) == ("executor", "elsewhere", execution_id)
    assert words in found.explanation
    assert "durable-monty executors check elsewhere" in found.remedy


def test_without_a_check_an_executor_is_only_loaded(open_patient):
    config = {"executor": "rq", "executors": {"rq": {"redis_url": "redis://127.0.0.1:1/0"}}}
    patient = open_patient(Config.model_validate(config))
    patient.begin(CALL, [host.add])
    patient.wait(LATE)
    assert patient.only(check_executors=False)[0].kind == "untaken"


def test_no_worker_has_the_executor(patient):
    """Here it works; workers are alive and take none of its calls."""
    patient.begin(CALL, [host.add])
    patient.wait(LATE)
    found, _ = patient.only()
    assert (found.kind, found.subject) == ("untaken", "local")


def test_a_call_that_is_refused_again_and_again(patient):
    refuse = lambda calls: [Refused(call.job_id, "the house is full", LATE) for call in calls]  # noqa: E731
    executor = Scripted(submit=[refuse] * 100)
    patient.service.start_execution(CALL, [host.add], execution_id="e")
    for _ in range(3):
        Worker(patient.service, executor).run(once=True)
        patient.wait(LATE - 10)
    assert len(executor.submitted) >= 1
    found, stuck = patient.only()
    assert (found.kind, found.subject, stuck.call_id) == ("refused", "local", 0)
    assert "it is offered again at" in stuck.detail


def test_a_call_that_fails_again_and_again(patient):
    execution_id = patient.begin("await flaky()", [flaky])
    patient.service.fail_call(execution_id, 0, ConnectionError("the far end is down"))
    patient.wait(LATE)
    found, stuck = patient.only()
    assert (found.kind, stuck.call_id, stuck.line) == ("failing", 0, 1)
    assert "attempts that failed: 1, the last with user, ConnectionError: the far end is down" in stuck.detail
    assert "the next begins at" in stuck.detail


def test_a_call_that_fails_again_and_again_and_is_at_its_executor_right_now(patient):
    """Found between its failures; an attempt that lasts is not taken for one of them."""
    execution_id = patient.begin("await hasty()", [hasty])
    for attempt in range(1, 8):
        patient.wait(60)
        (call,) = patient.claim_calls()
        assert call.row.attempt == attempt
        assert patient.kinds() == ({execution_id: "failing"} if attempt * 60 >= doctor.AFTER_SECONDS else {})
        patient.service.fail_call(execution_id, 0, ConnectionError(f"number {attempt}"))
    patient.wait(60)
    patient.claim_calls()
    found, stuck = patient.only()
    assert (found.kind, stuck.call_id) == ("failing", 0)
    assert "attempts that failed: 7, the last with user, ConnectionError: number 7; attempt 8 is at its" in stuck.detail
    patient.wait(LATE)
    assert patient.service.diagnose() == []


def test_many_calls_that_failed_are_one_row(patient):
    """Of each line the first one's failure is read, however many there are."""
    code = "from asyncio import gather\nawait gather(*[flaky() for _ in range(50)])\nawait flaky()"
    execution_id = patient.begin(code, [flaky])
    for call_id in range(50):
        patient.service.fail_call(execution_id, call_id, ConnectionError(f"call {call_id}"))
    failures = patient.store.examining.last_failures([execution_id])
    assert [(key, failure.message) for key, failure in failures.items()] == [
        ((execution_id, flaky.path, 2, "pending"), "call 0")
    ]


def test_who_holds_a_limit_is_found_by_its_index(patient):
    """However many calls have ended in this database."""
    with patient.store._connections.read() as connection:
        statement = f"EXPLAIN QUERY PLAN {examining._HOLDERS.text(connection)}"
        (plan, *_) = connection.connection.driver_connection.execute(statement, {"key": "k"}).fetchall()
    assert "calls_limited (limit_key=? AND status=?)" in plan[-1]


def test_those_that_were_paused_and_those_that_were_not_are_told_apart(patient):
    """One kind with two explanations is two paragraphs."""
    worker = patient.service.runtime.lease.worker
    for name, crashes in (("once", 1), ("thrice", 3)):
        patient.service.start_execution("1", [], execution_id=name)
        for number in range(1, crashes + 1):
            assert patient.store.claim(worker, patient.now(), 1, [name])
            patient.store.record_crash(worker, name, patient.now() if number < 3 else None, "crashed")
    patient.wait(LATE)
    found = {item.executions[0].execution_id: item for item in patient.service.diagnose()}
    assert {item.kind for item in found.values()} == {"poisoned"}
    assert "so it was paused" in found["thrice"].explanation
    assert "paused" not in found["once"].explanation


def test_of_many_signals_that_nobody_waits_for_some_are_named(patient):
    patient.begin(SIGNAL, execution_id="e")
    for number in range(8):
        patient.service.signal("e", f"other{number}")
    patient.wait(2 * DAY)
    assert patient.only()[1].detail.endswith("'other3', 'other4', and 3 more")


def test_a_limit_that_is_held_by_a_call_that_never_ends(patient):
    holder = patient.begin("await alone('a')", [alone])
    patient.claim_calls()
    waits = patient.begin("await alone('b')", [alone])
    patient.wait(2 * DAY)
    assert patient.kinds() == {holder: "silent", waits: "limit"}
    (limit,) = [item for item in patient.service.diagnose() if item.kind == "limit"]
    assert f"{holder}:0" in limit.explanation


def test_a_call_at_its_executor_for_long_without_any_limit(patient):
    patient.begin(CALL, [host.add])
    patient.claim_calls()
    patient.wait(DAY / 2)
    assert patient.service.diagnose() == []
    patient.wait(DAY)
    found, _ = patient.only()
    assert found.kind == "silent"
    assert "timeout_seconds" in found.remedy


def test_there_has_been_no_room_for_long(patient):
    patient.begin(CALL, [host.add])
    patient.claim_calls()
    patient.wait(DAY / 2)
    patient.begin(CALL, [host.add], execution_id="behind")
    patient.wait(DAY / 4)
    assert patient.service.diagnose() == []
    patient.wait(DAY)
    assert patient.kinds()["behind"] == "room"


def test_a_call_whose_time_is_over_and_that_nobody_ends(patient):
    patient.begin("await limited()", [limited])
    patient.claim_calls()
    patient.wait(LATE + 60)
    assert patient.only()[0].kind == "expired"


def test_a_worker_that_is_gone_holds_it_and_nobody_takes_over(patient):
    gone = new_identity()
    patient.store.register(gone, patient.now() + 30)
    patient.service.start_execution("1", [], execution_id="e")
    assert patient.store.claim(gone.id, patient.now(), 1, ["e"])
    patient.wait(LATE)
    found, _ = patient.only()
    assert (found.kind, found.subject) == ("held", gone.id)
    assert "no other worker takes over" in found.explanation


def test_what_a_program_that_was_killed_held_goes_on_as_the_remedy_says(patient):
    """A program that advances executions without a worker has no lease that could lapse."""
    patient.service.start_execution("1", [], execution_id="e")
    assert patient.store.claim("a-program", patient.now(), 1, ["e"])
    patient.wait(LATE)
    found, _ = patient.only()
    assert found.kind == "held"
    assert "`durable-monty pause ID` and then `durable-monty resume ID`" in found.remedy
    patient.service.pause("e")
    patient.service.resume("e")
    Worker(patient.service).run(until_complete=True)
    assert patient.service.get_result("e") == 1


def test_a_worker_that_is_alive_and_hangs(patient):
    patient.service.start_execution("1", [], execution_id="e")
    patient.service.runtime.lease.renew()
    worker = patient.service.runtime.lease.worker
    assert patient.store.claim(worker, patient.now(), 1, ["e"])
    patient.wait(LATE)
    found, _ = patient.only()
    assert (found.kind, found.subject) == ("busy", worker)


def test_a_paused_execution(patient):
    execution_id = patient.begin(SIGNAL)
    patient.service.pause(execution_id, "looking into it")
    found, stuck = patient.only()
    assert (found.kind, stuck.detail) == ("paused", "looking into it")


def test_a_poisoned_execution(patient):
    """What the engine writes when turns take their sandbox process down."""
    patient.service.start_execution("1", [], execution_id="e")
    worker = patient.service.runtime.lease.worker
    for crashes in (1, 2, 3):
        assert patient.store.claim(worker, patient.now(), 1, ["e"])
        held_until = patient.now() if crashes < 3 else None
        assert patient.store.record_crash(worker, "e", held_until, f"turn 1 crashed {crashes} times") == crashes
        patient.wait(LATE)
        found, stuck = patient.only()
        assert (found.kind, stuck.detail) == ("poisoned", f"turn 1 crashed {crashes} times")
    assert patient.service.get_execution("e")["status"] == "paused"


def test_a_snapshot_of_a_newer_monty(patient):
    """Due, and not advanced; the Monty that is installed says itself that it cannot read it."""
    execution_id = patient.begin(SLEEP.format(seconds=10))
    row, snapshot = patient.store.execution(execution_id), patient.store.snapshot(execution_id)
    state = unseal(execution_id, row.version, snapshot, None)
    newer = seal(execution_id, row.version, state[:6] + struct.pack("<H", 999) + state[8:], "9.9.9", None)
    patient.change(
        "UPDATE snapshots SET snapshot = :data, digest = :digest, monty_version = '9.9.9', format = 999",
        data=newer.data, digest=newer.digest,
    )  # fmt: skip
    patient.wait(LATE)
    found, stuck = patient.only()
    assert (found.kind, found.subject) == ("snapshot", "9.9.9 (format 999)")
    assert "999" in stuck.detail
    assert "pydantic-monty 9.9.9 or newer" in found.remedy
    Worker(patient.service).run(until_complete=True)
    assert "rebuilt from the log" in patient.service.get_execution(execution_id)["note"]


def test_a_value_of_a_key_that_no_worker_has(open_patient, database_url):
    """It is tried again and again, so that it never seems to be late."""
    key = {"security": {"encryption_key": "a key of more than thirty-two characters"}}
    encrypted = open_patient(Config.model_validate(key), database_url)
    encrypted.service.start_execution(CALL, [host.add], execution_id="e")
    patient = open_patient(url=database_url)
    assert patient.kinds() == {}
    with pytest.raises(PayloadUnreadable):
        patient.service.process_execution("e")
    found, stuck = patient.only()
    assert (found.kind, stuck.execution_id) == ("unreadable", "e")
    assert "no encryption is configured here" in stuck.detail


def test_a_signal_that_nobody_sends(patient):
    """Its name, since when, and the one that was sent under another name."""
    patient.begin(SIGNAL, execution_id="e")
    patient.begin("from durable_monty.flow import signal\nawait signal('paid', timeout_seconds=864000)")
    patient.service.signal("e", "aproved")
    begun = time.time()
    patient.wait(2 * DAY)
    approved, paid = sorted(patient.service.diagnose(), key=lambda item: item.subject)
    assert (approved.kind, approved.subject, paid.subject) == ("signal", "approved", "paid")
    assert abs(approved.since - begun) < 60
    assert "it waits for ever; others were sent that it does not wait for: 'aproved'" in approved.executions[0].detail
    assert "it stops waiting at" in paid.executions[0].detail


FAMILY = """
from durable_monty import workflow
from durable_monty.flow import child, signal

@workflow
async def youngest() -> None:
    await signal("never")

@workflow
async def middle() -> None:
    await child(youngest, execution_id="youngest")

@workflow
async def oldest() -> None:
    await child(middle, execution_id="middle")
"""


def test_parents_name_what_is_at_the_root(patient, tmp_path, monkeypatch):
    (tmp_path / "family_of_doctor.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import family_of_doctor

    patient.service.start_execution(family_of_doctor.oldest, execution_id="oldest")
    for name in ("oldest", "middle", "youngest"):
        patient.service.process_execution(name)
    patient.wait(2 * DAY)
    root, waiting = sorted(patient.service.diagnose(), key=lambda item: item.count)
    assert [(item.kind, item.subject) for item in (root, waiting)] == [("signal", "never"), ("child", "signal never")]
    assert {item.execution_id: item.detail for item in waiting.executions} == {
        "middle": "child 'youngest'",
        "oldest": "child 'middle', held up by 'youngest'",
    }


def test_an_outcome_of_which_nobody_was_told(patient):
    execution_id = patient.begin(CALL, [host.add])
    patient.service.complete_call(execution_id, 0, 3)
    patient.change("UPDATE executions SET wake_at = NULL")
    patient.wait(LATE)
    found, _ = patient.only()
    assert found.kind == "forgotten"
    patient.service.pause(execution_id)
    patient.service.resume(execution_id)
    Worker(patient.service).run(until_complete=True)
    assert patient.service.get_result(execution_id) == 3


def test_tasks_that_wait_for_one_another(patient):
    patient.begin(SIGNAL)
    patient.change("UPDATE calls SET kind = 'channel', function = ''")
    patient.wait(LATE)
    assert patient.only()[0].kind == "deadlock"


def test_a_function_that_is_not_registered_any_more_fails_its_call(patient):
    """Not stuck: the call is refused where it runs, and the workflow sees it."""
    patient.service.start_execution(CALL, ["support.functions.add"], execution_id="e", check=False)
    patient.change(
        "UPDATE workflows SET functions = replace(functions, 'support.functions.add', 'support.functions.gone')"
    )
    Worker(patient.service).run(until_complete=True)
    assert patient.service.get_execution("e")["status"] == "failed"
    assert patient.service.diagnose() == []


def test_many_with_one_reason_are_one_paragraph(patient):
    """More than a page of them; the first are named, the others counted."""
    workflow = patient.begin(SIGNAL, execution_id="first")
    with patient.store._connections.write() as connection:
        names = ", ".join(
            f"{name}"
            for name in ("workflow", "status", "version", "next_batch", "inputs", "is_cancel_delivered", "crashes")
        )
        connection.execute(
            text(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) "
                f"INSERT INTO executions (id, created_at, {names}) SELECT 'e' || i, created_at, {names} FROM executions, n"
            )
        )
        connection.execute(
            text(
                "INSERT INTO calls (execution_id, call_id, kind, function, arguments, line, blocking, priority, status,"
                " attempt, lost, created_at) SELECT e.id, 0, kind, function, arguments, line, blocking, priority, c.status,"
                " attempt, lost, c.created_at FROM executions e, calls c WHERE e.id <> :first"
            ),
            {"first": workflow},
        )
    patient.wait(2 * DAY)
    (found,) = patient.service.diagnose(examples=3)
    assert (found.count, len(found.executions)) == (1201, 3)


def test_a_negative_number_is_refused(patient):
    with pytest.raises(ValueError, match="after_seconds is -1"):
        patient.service.diagnose(after_seconds=-1)


# The command


@pytest.fixture
def shop(open_patient, tmp_path):
    """The database that the command uses without a configuration."""
    return open_patient(url=f"sqlite:///{tmp_path / 'durable-monty.db'}")


def run(*arguments, code):
    done = CliRunner().invoke(main, ["doctor", *arguments])
    assert done.exit_code == code, done.output
    return done.stdout


def test_the_command_says_that_nothing_is_stuck(shop):
    shop.begin(SLEEP.format(seconds=DAY))
    assert run(code=0) == "nothing is stuck\n"
    assert json.loads(run("--json", code=0)) == []


def test_the_command_prints_why_and_what_to_do_and_exits_with_1(shop):
    for number in range(3):
        shop.begin(SIGNAL, execution_id=f"e{number}")
    printed = run("--waiting-after", "0", "--examples", "2", code=1)
    assert "signal: 3 executions, since" in printed
    assert "why      it waits for signal 'approved', which nobody has sent" in printed
    assert "what now `durable-monty signal ID approved JSON`" in printed
    assert "  e0 call 0 since" in printed
    assert "  and 1 more\n" in printed
    assert printed.endswith("3 executions do not go on\n")
    (found,) = json.loads(run("--waiting-after", "0", "--json", code=1))
    assert (found["kind"], found["subject"], found["count"]) == ("signal", "approved", 3)
    assert [item["execution_id"] for item in found["executions"]] == ["e0", "e1", "e2"]


def test_the_command_prints_no_control_characters(shop):
    """A signal's name and a reason come from anywhere."""
    execution_id = shop.begin("from durable_monty.flow import signal\nawait signal('\\x1b[2J\\n')")
    printed = run("--waiting-after", "0", code=1)
    shop.service.pause(execution_id, "\x1b]0;title\x07\r\u202e")
    printed += run(code=1)
    assert "title" in printed
    assert not set(printed) - {"\n"} & {chr(code) for code in (*range(32), 127, 0x9B, 0x202E)}


def test_the_command_cuts_what_is_very_long(shop):
    """`--json` has all of it."""
    execution_id = shop.begin(SIGNAL)
    shop.service.pause(execution_id, "why " * 1000)
    assert "... and 3500 characters more, see --json" in run(code=1)
    (found,) = json.loads(run("--json", code=1))
    assert found["executions"][0]["detail"] == "why " * 1000


def test_every_kind_is_explained_and_has_a_test():
    """The page names what the code tells, and nothing else."""
    page = (Path(__file__).parent.parent / "docs" / "howto" / "stuck.md").read_text()
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", page.partition("## The kinds")[2], re.MULTILINE))
    source = inspect.getsource(causes) + inspect.getsource(doctor)
    told = set(re.findall(r'(?:living\.id|waiter\.id|call|first),\s+"([a-z-]+)",', source)) | {"no-worker", "held"}
    assert explained == told
    tests = Path(__file__).read_text()
    assert [kind for kind in told if tests.count(f'"{kind}"') == 0] == []


def test_the_command_has_the_defaults_of_the_service():
    """It names them itself, so that `--help` need not import the engine."""
    options = {option.name: option.default for option in main.commands["doctor"].params}
    assert options["after_seconds"] == doctor.AFTER_SECONDS
    assert options["waiting_seconds"] == doctor.WAITING_AFTER_SECONDS
    assert options["examples"] == doctor.EXAMPLES

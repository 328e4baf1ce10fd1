"""Databases and snapshots of earlier versions end under this one, and old and new workers share a database."""

from __future__ import annotations

import gzip
import sqlite3
import struct
import subprocess
import sys
import threading
import venv
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from durable_monty import OrchestratorService, SchemaMismatch, Worker, init_db
from durable_monty.config import Config
from durable_monty.errors import StoreError
from durable_monty.replay import ReplayMismatch
from durable_monty.sealing import SnapshotRefused, seal, unseal
from durable_monty.store import HEAD, current_revision, migrate
from durable_monty.store.schema import metadata
from support import functions as host

FOLDER = Path(__file__).parent / "fixtures"
FILES = sorted(path.name for path in FOLDER.glob("*.db.gz"))
RESULTS = {
    "chain": 113,
    "state": [[0, 3, 9], "ada", {"tea": 2, "cake": 3}, [(1, "a"), (2, "b")]],
    "sleep": 7,
    "clock": [2, True, False],
    "ended": 3,
    "scheduled": 113,
    "fan": 10,
    "signal": 42,
    "race": (1, 23),
}
LATER = {"signal", "race"}
"""What the first schema does not know."""


@pytest.fixture
def opened(tmp_path):
    """Opens a database of this folder as the code of today does."""
    services = []

    def open_(name):
        file = tmp_path / name.removesuffix(".gz")
        file.write_bytes(gzip.decompress((FOLDER / name).read_bytes()))
        services.append(OrchestratorService(init_db(f"sqlite:///{file}", synchronous="NORMAL"), Config()))
        return services[-1]

    yield open_
    for service in services:
        service.close()


def finish(service):
    """Let everything end; returns what it returned, and the notes."""
    if _has(service, "signal"):
        service.signal("signal", "go", 40)
    Worker(service).run(until_complete=True)
    ended = {row["execution_id"]: row for row in service.list_executions()}
    assert ended.pop("failed")["status"] == "failed"
    return {name: service.get_result(name) for name in ended}, {name: row["note"] for name, row in ended.items()}


def _has(service, execution_id):
    return execution_id in {row["execution_id"] for row in service.list_executions()}


@pytest.mark.parametrize("name", FILES)
def test_the_executions_of_an_earlier_version_go_on_from_their_snapshots(opened, name):
    """None is rebuilt, and no call that had ended is made again."""
    service = opened(name)
    before = {
        (row["execution_id"], call.call_id): call.outcome
        for row in service.list_executions()
        for call in service.runtime.store.calls(row["execution_id"])
        if call.status.is_terminal
    }
    assert len(before) >= 6
    results, notes = finish(service)
    expected = {key: value for key, value in RESULTS.items() if "0001" not in name or key not in LATER}
    assert results == expected
    assert set(notes.values()) == {None}
    after = {
        key: next(call for call in service.runtime.store.calls(key[0]) if call.call_id == key[1]) for key in before
    }
    assert {key: (call.outcome, call.attempt) for key, call in after.items()} == {
        key: (outcome, 1) for key, outcome in before.items()
    }


def test_there_is_a_database_of_every_format():
    """Written by Monty 1.2, 1.3 and 1.4, and at every revision of the schema."""
    found = set()
    for name in FILES:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(gzip.decompress((FOLDER / name).read_bytes()))
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            rows = connection.execute("SELECT DISTINCT monty_version, format FROM snapshots").fetchall()
            found |= {(revision, *row) for row in rows}
    assert {("0001", "1.4.0", 14), ("0002", "1.2.0", 13), ("0002", "1.3.0", 13), ("0002", "1.4.0", 14)} <= found
    assert {revision for revision, _, _ in found} == {f"{number:04}" for number in range(1, int(HEAD) + 1)}


@pytest.mark.parametrize("number", [pytest.param(1, id="too old"), pytest.param(999, id="too new")])
def test_a_snapshot_that_no_monty_can_read_is_rebuilt_from_the_log(opened, number):
    """The Monty of today refuses the format itself; every execution ends as if nothing had been, and says it."""
    service = opened("schema-0002-monty-1.4.db.gz")
    store = service.runtime.store
    rewritten = set()
    with store._connections.write() as connection:
        for execution_id in RESULTS:
            row, snapshot = store.execution(execution_id), store.snapshot(execution_id)
            if snapshot is None:
                continue
            state = unseal(execution_id, row.version, snapshot, None)
            other = seal(execution_id, row.version, state[:6] + struct.pack("<H", number) + state[8:], "?", None)
            connection.execute(
                text(
                    "UPDATE snapshots SET snapshot = :data, digest = :digest, format = :format WHERE execution_id = :id"
                ),
                {"data": other.data, "digest": other.digest, "format": number, "id": execution_id},
            )
            rewritten.add(execution_id)
    results, notes = finish(service)
    assert results == RESULTS
    assert rewritten >= {"chain", "state", "sleep", "clock", "fan", "signal", "race"}
    for name in rewritten:
        assert (
            f"rebuilt from the log: RuntimeError: protocol violation: failed to load session: dump format version {number} "
            in (notes[name] or "")
        ), name


def test_a_database_of_this_version_is_made_by_the_script(tmp_path):
    """As each release does it."""
    done = subprocess.run(
        [sys.executable, FOLDER / "make.py", tmp_path / "new.db.gz"],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert f'"schema": "{HEAD}"' in done.stdout
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(gzip.decompress((tmp_path / "new.db.gz").read_bytes()))
        made = {name for (name,) in connection.execute("SELECT id FROM executions")}
    assert made == {*RESULTS, "failed"}


# Old and new workers on one database


def work(service, poll_interval=0.05):
    """A worker in a thread; returns what ends it."""
    worker = Worker(service, poll_interval=poll_interval)
    thread = threading.Thread(target=worker.run)
    thread.start()

    def end():
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()

    return end


def test_a_worker_that_runs_goes_on_while_the_schema_becomes_newer(database_url):
    """Migrations only add. What `SELECT *` gave would change under its statements, which PostgreSQL refuses for ever."""
    with OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config()) as service:
        chain = "for i in range(12):\n    x = await add(i, 1)\nx"
        end = work(service)
        try:
            # One after the other: psycopg has the server keep a statement that it has run five times.
            for _ in range(8):
                assert service.wait(service.start_execution("await add(1, 2)", [host.add]), 60)["output"] == 3
            under_way = [service.start_execution(chain, [host.add]) for _ in range(3)]
            add_columns(database_url)
            after = [service.start_execution(chain, [host.add]) for _ in range(3)]
            assert [service.wait(name, 60)["output"] for name in (*under_way, *after)] == [12] * 6
        finally:
            end()


def add_columns(url):
    """What the migration of a later version may do, with a revision that this code does not know."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    for table in metadata.tables:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {table} ADD COLUMN of_the_future TEXT"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()


def test_a_worker_of_an_older_version_does_not_start_on_a_newer_schema(tmp_path):
    """It says which revision there is and what to do, and changes nothing."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    init_db(url).close()
    add_columns(url)
    with pytest.raises(SchemaMismatch, match=r"revision 9999, newer than .*; upgrade durable-monty here"):
        init_db(url)
    assert current_revision(url) == "9999"


@pytest.mark.parametrize(("deadlocks", "passes"), [(1, True), (4, True), (5, False)])
def test_a_migration_that_meets_workers_is_tried_again(monkeypatch, postgresql_url, deadlocks, passes):
    """PostgreSQL ends one of two transactions that wait for each other; the migration has changed nothing by then."""
    left = [deadlocks]
    run = migrate._run

    def meet_workers(engine):
        if left[0]:
            left[0] -= 1
            raise OperationalError("ALTER TABLE calls", {}, psycopg.errors.DeadlockDetected("deadlock detected"))
        run(engine)

    monkeypatch.setattr(migrate, "_run", meet_workers)
    if passes:
        init_db(postgresql_url).close()
        assert current_revision(postgresql_url) == HEAD
    else:
        with pytest.raises((OperationalError, StoreError), match="deadlock"):
            init_db(postgresql_url)
        assert current_revision(postgresql_url) is None


def with_older_monty(service):
    """Let it refuse what a newer Monty has written, as Monty 1.3 refuses what 1.4 writes."""
    interpreter, turns = service.runtime.interpreter, service.runtime.engine._turns
    interpreter.__dict__["monty_version"] = "1.3.0"
    read = turns._state

    def state(held):
        snapshot = held.snapshot or service.runtime.store.snapshot(held.row.id)
        if snapshot.monty_version != "1.3.0":
            raise SnapshotRefused("dump format version 14 is newer than 13, the newest this build reads")
        return read(held)

    turns._state = state
    return service


@pytest.fixture
def old_and_new(tmp_path):
    """Two services, as two processes have them, on one database."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    old, new = (OrchestratorService(init_db(url, synchronous="NORMAL"), Config()) for _ in range(2))
    yield with_older_monty(old), new
    old.close()
    new.close()


def test_turns_of_old_and_new_workers_may_alternate(old_and_new):
    """The new one reads what the old one wrote; the old one rebuilds what the new one wrote, and says so."""
    old, new = old_and_new
    source = "total = 0\nfor i in range(6):\n    total = await add(total, i)\ntotal"
    new.start_execution(source, [host.add], execution_id="e")
    new.process_execution("e")
    total = 0
    for call_id, service in enumerate((old, new, old, new, old, new)):
        total += call_id
        service.complete_call("e", call_id, total)
        before = new.get_execution("e")["note"]
        service.process_execution("e")
        if service is old:
            assert "rebuilt from the log: dump format version 14 is newer than 13" in new.get_execution("e")["note"]
            assert new.runtime.store.snapshot("e").monty_version == "1.3.0"
        else:
            assert new.get_execution("e")["note"] == before
    assert new.get_result("e") == 15
    assert [call.attempt for call in new.runtime.store.calls("e")] == [1] * 6


def test_what_an_old_worker_could_not_rebuild_goes_on_under_the_new_one(old_and_new, monkeypatch):
    """It fails and says which call differs; retried, it goes on from the snapshot, which was kept."""
    old, new = old_and_new
    new.start_execution("x = await add(1, 2)\nawait add(x, 10)", [host.add], execution_id="e")
    new.process_execution("e")
    new.complete_call("e", 0, 3)
    with monkeypatch.context() as patched:
        patched.setattr("durable_monty.turns.replay", differ)
        old.process_execution("e")
    assert "call 0 is now something else" in new.get_execution("e")["error"]
    new.retry("e")
    Worker(new).run(until_complete=True)
    assert new.get_result("e") == 13
    assert [call.attempt for call in new.runtime.store.calls("e")] == [1, 1]


def differ(session, *_):
    """As an interpreter would that runs a workflow in another way."""
    raise ReplayMismatch("rebuilding from the log: call 0 is now something else")


def test_old_and_new_workers_at_once_break_nothing(old_and_new):
    """Sleeping executions are taken by whichever worker looks first."""
    old, new = old_and_new
    source = "from asyncio import sleep\nx = 0\nfor i in range(4):\n    x = await add(x, 1)\n    await sleep(0.02)\nx"
    names = [new.start_execution(source, [host.add]) for _ in range(8)]
    ends = [work(old), work(new)]
    try:
        assert {new.wait(name, 90)["output"] for name in names} == {4}
    finally:
        for end in ends:
            end()
    calls = [call for name in names for call in new.runtime.store.calls(name, "function")]
    assert [(call.status, call.attempt) for call in calls] == [("completed", 1)] * 32


OLDER = """
import sys
sys.path.insert(0, {tests!r})
from durable_monty import OrchestratorService, Worker, init_db
service = OrchestratorService(init_db({url!r}, synchronous="NORMAL"))
"""


@pytest.fixture(scope="module")
def monty_1_3(tmp_path_factory):
    """An interpreter with Monty 1.3 in front of everything that this one has."""
    folder = tmp_path_factory.mktemp("monty-1.3")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "pydantic-monty==1.3.0"]
    subprocess.run(pip, check=True, timeout=300)
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (own,) = folder.glob("lib/*/site-packages")
    (own / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    return python


@pytest.mark.thorough
def test_processes_of_monty_1_3_and_of_this_one_share_a_database(monty_1_3, database_url):
    """Nothing is imitated: turns alternate between two processes, then both work at once."""
    head = OLDER.format(tests=str(FOLDER.parent), url=database_url)

    def start(source):
        return subprocess.Popen([monty_1_3, "-c", head + source])

    source = "total = 0\nfor i in range(4):\n    total = await add(total, i)\ntotal"
    with OrchestratorService(init_db(database_url, synchronous="NORMAL"), Config()) as new:
        new.start_execution(source, [host.add], execution_id="e")
        new.process_execution("e")
        total = 0
        for call_id in range(4):
            total += call_id
            new.complete_call("e", call_id, total)
            if call_id % 2:
                new.process_execution("e")
                continue
            with start("service.process_execution('e')") as older:
                assert older.wait(100) == 0
            assert new.runtime.store.snapshot("e").monty_version == "1.3.0"
            assert "dump format version 14 is newer than 13" in new.get_execution("e")["note"]
        assert new.get_result("e") == 6
        sleeping = (
            "from asyncio import sleep\nx = 0\nfor i in range(8):\n    x = await add(x, 1)\n    await sleep(0.2)\nx"
        )
        names = [new.start_execution(sleeping, [host.add]) for _ in range(6)]
        with start("Worker(service).run(until_complete=True)") as older:
            Worker(new).run(until_complete=True)
            assert older.wait(100) == 0
        assert {new.get_result(name) for name in names} == {8}
        calls = [call for name in (*names, "e") for call in new.runtime.store.calls(name, "function")]
        assert {(call.status, call.attempt) for call in calls} == {("completed", 1)}

"""Encryption at rest: nothing readable in the database, keys that change, and what cannot be decrypted."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text

from durable_monty import OrchestratorService, Retry, Worker, function, init_db
from durable_monty.cli import main
from durable_monty.config import Config, load, to_display
from durable_monty.encryption import AesSiv, CannotDecrypt, EncryptionKeys
from durable_monty.errors import ConfigError, ExecutionConflict, PayloadUnreadable
from durable_monty.records import HeardBeat
from durable_monty.store.schema import metadata
from support import functions as host

PAGES = Path(__file__).parent.parent / "docs" / "howto"
SECRET = "mellon-friend-4711"
OLD, NEW = "an old key of more than 32 characters", "a newer key of more than 32 characters"
CHAIN = "a = await add(1, 2)\nb = await add(a, 1)\nawait add(b, 1)"
WORD = "from durable_monty.flow import signal\nawait signal('word')"
EVERYTHING = """
from durable_monty.flow import publish, signal, settle
publish("news", {"secret": secret})
heard = await signal("word")
said = await identity([secret, heard])
tried = await settle(fail("ValueError", secret))
await fail("KeyError", secret)
"""


@function(retry=Retry(attempts=5, first_delay_seconds=5000))
def unlucky(why):
    """Tried again in hours."""
    raise ValueError(why)


def config(current=None, *previous):
    keys = {"encryption_key": current, "previous_encryption_keys": list(previous)}
    return Config.model_validate({"security": keys if current or previous else {}})


def open_service(url, *keys):
    return OrchestratorService(init_db(url, synchronous="NORMAL"), config(*keys))


def rows(url):
    """Every row of every table."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = [tuple(row) for table in metadata.tables.values() for row in connection.execute(select(table))]
    engine.dispose()
    return [[item if isinstance(item, bytes) else str(item).encode() for item in row] for row in found]


def files(url, tmp_path):
    """The files that a database consists of, with all that has been written by now."""
    if url.startswith("sqlite"):
        return tmp_path.glob("test.db*")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CHECKPOINT"))
        folder = connection.scalar(text("SHOW data_directory"))
        oid = connection.scalar(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
    engine.dispose()
    return (Path(folder) / "base" / str(oid)).iterdir()


def stored(url, tmp_path):
    """Everything that is in the database: its rows, as they are read, and the bytes of its files."""
    found = b"\n".join(path.read_bytes() for path in files(url, tmp_path))
    assert b"await identity" in found
    return b"\n".join([*chain.from_iterable(rows(url)), found])


def run(service):
    Worker(service).run(until_complete=True)


def run_until_ended(service, execution_id):
    Worker(service).run_until(lambda: service.get_execution(execution_id)["ended_at"] is not None)


def whole_story(service):
    """An execution with the secret in everything that it stores; it ends as a failed one."""
    service.create_schedule(
        "yearly",
        "await identity(secret)",
        cron="0 0 1 1 *",
        inputs={"secret": SECRET},
        external_functions=[host.identity],
    )
    assert service.list_schedules()[0]["inputs"] == {"secret": SECRET}
    service.start_execution("await identity(1)", [host.identity], execution_id="reports")
    service.process_execution("reports")
    due = service.runtime.store.claim_calls(service.runtime.lease.worker, "local", service.runtime.clock(), 1)
    beat = HeardBeat("reports", 0, 1, service.runtime.clock(), json.dumps(SECRET))
    service.runtime.store.times.record_heartbeats([beat], lambda row, at: (at + 60, None))
    assert service.runtime.store.call("reports", 0).progress == json.dumps(SECRET)
    service.runtime.store.put_back([(due[0].execution_id, 0, 1)], service.runtime.clock())
    service.start_execution(
        EVERYTHING, [host.identity, host.fail], {"secret": SECRET}, execution_id="e", memo={"of": SECRET}
    )
    service.signal("e", "later", SECRET)
    for _ in range(2):
        service.process_execution("e")
    service.signal("e", "word", SECRET)
    run(service)
    service.retry("e")
    run(service)


@pytest.mark.parametrize("is_encrypted", [True, False])
def test_nothing_of_a_users_values_is_readable_in_the_database(database_url, tmp_path, is_encrypted):
    """Without encryption it is: the test would find it."""
    with open_service(database_url, *([OLD] if is_encrypted else [])) as service:
        whole_story(service)
        assert service.get_execution("e")["inputs"] == {"secret": SECRET}
        assert SECRET in service.get_execution("e")["error"]
        assert service.published("e") == {"news": {"secret": SECRET}}
        service.start_execution("await identity(secret)", [host.identity], {"secret": SECRET}, execution_id="ok")
        service.start_execution("await identity(secret)", [host.identity], {"secret": SECRET}, execution_id="open")
        service.process_execution("open")
        found = stored(database_url, tmp_path)
        run(service)
        assert service.get_result("ok") == SECRET
        found += stored(database_url, tmp_path)
    assert (SECRET.encode() in found) is not is_encrypted
    assert b"an old key" not in found


def test_a_row_that_is_written_again_is_the_same(database_url):
    """The store compares outcomes to find out whether a commit of unknown fate has happened."""
    cipher = AesSiv(AesSiv.Settings(), EncryptionKeys(OLD.encode()))
    assert cipher.encrypt(b"value", b"here") == cipher.encrypt(b"value", b"here") != cipher.encrypt(b"value", b"there")
    with pytest.raises(CannotDecrypt, match="moved there from another place"):
        cipher.decrypt(cipher.encrypt(b"value", b"here"), b"there", cipher.key_id)


def test_a_key_is_changed_while_executions_run_and_the_old_one_is_thrown_away(database_url):
    """Plain rows, rows of the old and rows of the new key lie side by side until they are rewritten."""
    with open_service(database_url) as service:
        service.start_execution("await identity(1)", [host.identity], execution_id="plain")
        service.process_execution("plain")
    with open_service(database_url, OLD) as service:
        service.start_execution(CHAIN, [host.add], execution_id="old")
        service.process_execution("old")
        service.complete_call("old", 0, 3)
        service.signal("old", "unheard", SECRET)
    with open_service(database_url, NEW, OLD) as service:
        service.process_execution("old")
        assert sum(service.runtime.store.reencrypt()) > 0
        assert sum(service.runtime.store.reencrypt()) == 0
    with open_service(database_url, NEW) as service:
        run(service)
        assert service.get_result("old") == 5
        assert service.get_result("plain") == 1
        assert service.get_execution("old")["note"] is None
    with open_service(database_url, None, NEW) as service:
        assert sum(service.runtime.store.reencrypt(is_plain=True)) > 0
    assert b"$sealed:" not in b"".join(chain.from_iterable(rows(database_url)))
    with open_service(database_url) as service:
        assert service.get_result("old") == 5


def test_rewriting_bears_with_workers_and_with_being_killed(database_url):
    """It is killed after each of its transactions in turn; a worker goes on between any two."""
    names = [f"e{number}" for number in range(12)]
    with open_service(database_url, OLD) as service:
        for name in names:
            service.start_execution(CHAIN, [host.add], execution_id=name)
            service.process_execution(name)
    with open_service(database_url, NEW, OLD) as service:
        for kills, name in enumerate(names):
            rewriting = service.runtime.store.reencrypt()
            for _ in range(kills % 6):
                next(rewriting, None)
                service.complete_call(name, len(service.runtime.store.calls(name)) - 1, kills)
                service.process_execution(name)
                if service.get_execution(name)["ended_at"] is not None:
                    break
            rewriting.close()
        sum(service.runtime.store.reencrypt())
    with open_service(database_url, NEW) as service:
        run(service)
        assert {service.get_execution(name)["status"] for name in names} == {"completed"}
        assert {service.get_execution(name)["note"] for name in names} == {None}
        assert service.get_result("e0") == 5


@pytest.mark.parametrize("keys", [(), (NEW,)])
def test_a_worker_without_the_key_leaves_an_execution_alone_and_does_all_others(database_url, keys, caplog):
    with open_service(database_url, OLD) as service:
        for name in ("begun", "new"):
            service.start_execution(CHAIN, [host.add], execution_id=name)
        service.process_execution("begun")
        service.complete_call("begun", 0, 3)
    with open_service(database_url, *keys) as service, caplog.at_level(logging.WARNING):
        service.start_execution(CHAIN, [host.add], execution_id="other")
        run_until_ended(service, "other")
        assert service.get_result("other") == 5
        listed = {item["execution_id"]: item for item in service.list_executions()}
        assert listed["new"]["status"] in ("scheduled", "waiting")
        assert "key" in listed["new"]["note"]
        with pytest.raises(PayloadUnreadable, match=r"previous_encryption_keys"):
            service.get_execution("begun")
    with open_service(database_url, NEW, OLD) as service:
        for name in ("begun", "new"):
            service.process_execution(name)
        run(service)
        assert [service.get_result(name) for name in ("begun", "new", "other")] == [5, 5, 5]
    assert OLD not in caplog.text


def test_a_signal_of_a_newer_key_waits_for_a_worker_that_has_it(database_url):
    """The call that waits for it must not begin to wait where the signal is not seen: nobody would look again."""
    with open_service(database_url, OLD) as service:
        service.start_execution(WORD, execution_id="e")
    with open_service(database_url, NEW, OLD) as service:
        service.signal("e", "word", SECRET)
        service.signal("e", "word", "a later one")
    with open_service(database_url, OLD) as service:
        service.process_execution("e")
        service.start_execution(CHAIN, [host.add], execution_id="other")
        run_until_ended(service, "other")
        assert "reading signal of execution 'e', word: it is encrypted" in service.get_execution("e")["note"]
        (found,) = service.diagnose()
        assert found.kind == "unreadable"
        assert "previous_encryption_keys" in found.executions[0].detail
    with open_service(database_url, NEW, OLD) as service:
        service.process_execution("e")
        run(service)
        assert service.get_result("e") == SECRET
        assert service.get_execution("e")["note"] == "could not be decrypted for a while"


def test_a_start_with_an_id_that_is_taken_says_so_if_it_cannot_compare_the_inputs(database_url):
    """It would else say that they are other ones."""
    start = {"workflow": "await identity(x)", "external_functions": [host.identity], "execution_id": "e"}
    with open_service(database_url, OLD) as service:
        service.start_execution(**start, inputs={"x": 1})
        assert service.start_execution(**start, inputs={"x": 1}) == "e"
        with pytest.raises(ExecutionConflict, match="other inputs"):
            service.start_execution(**start, inputs={"x": 2})
    with open_service(database_url) as service, pytest.raises(PayloadUnreadable, match="reading inputs"):
        service.start_execution(**start, inputs={"x": 1})


def test_the_doctor_tells_failures_that_are_encrypted(database_url):
    """And goes on without the key."""
    with open_service(database_url, OLD) as service:
        service.start_execution("await unlucky(why)", [unlucky], {"why": SECRET}, execution_id="e")
        service.process_execution("e")
        service.fail_call("e", 0, ValueError(SECRET))
        (found,) = service.diagnose(after_seconds=0)
        assert SECRET in found.executions[0].detail
    with open_service(database_url) as service:
        (found,) = service.diagnose(after_seconds=0)
        assert "previous_encryption_keys" in found.executions[0].detail


def change(file, *statements):
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0


FORGERIES = {
    "an outcome of another execution": """UPDATE calls SET outcome =
        (SELECT outcome FROM calls WHERE execution_id = 'other' AND call_id = 0) WHERE execution_id = 'e'""",
    "arguments in place of an outcome": "UPDATE calls SET outcome = arguments WHERE execution_id = 'e' AND call_id = 0",
    "a changed outcome": """UPDATE calls SET outcome = substr(outcome, 1, length(outcome) - 4) || 'AAA='
        WHERE execution_id = 'e' AND call_id = 0""",
    "an outcome that was cut off": "UPDATE calls SET outcome = '$sealed:aes' WHERE execution_id = 'e' AND call_id = 0",
    "another cipher": "UPDATE calls SET outcome = '$sealed:rot13:1:AAAA' WHERE execution_id = 'e' AND call_id = 0",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_was_changed_or_moved_is_not_delivered_and_holds_up_nobody(tmp_path, forgery):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    with open_service(url, OLD) as service:
        for name, value in (("e", 3), ("other", 4)):
            service.start_execution(CHAIN, [host.add], execution_id=name)
            service.process_execution(name)
            service.complete_call(name, 0, value)
    change(tmp_path / "test.db", FORGERIES[forgery])
    with open_service(url, OLD) as service:
        run_until_ended(service, "other")
        assert service.get_result("other") == 6
    with open_service(url, OLD) as service:
        row = service.runtime.store.execution("e")
        assert row.status == "waiting"
        assert "outcome of execution 'e', 0" in row.note


SNAPSHOTS = {
    "a flipped bit": "UPDATE snapshots SET snapshot = substr(snapshot, 1, length(snapshot) - 1) || x'00'",
    "another execution's": """UPDATE snapshots SET snapshot =
        (SELECT snapshot FROM snapshots WHERE execution_id = 'other') WHERE execution_id = 'e'""",
    "no more than its header": "UPDATE snapshots SET snapshot = '$sealed:aes-siv:'",
}


@pytest.mark.parametrize("damage", SNAPSHOTS)
def test_an_encrypted_snapshot_that_was_changed_or_moved_is_rebuilt_from_the_log(tmp_path, damage):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    with open_service(url, OLD) as service:
        for name in ("e", "other"):
            service.start_execution(CHAIN, [host.add], execution_id=name)
            service.process_execution(name)
    change(tmp_path / "test.db", SNAPSHOTS[damage])
    with open_service(url, OLD) as service:
        run(service)
        assert service.get_result("e") == 5
        assert "rebuilt from the log" in service.get_execution("e")["note"]


def test_an_error_that_looks_encrypted_is_only_a_text(lite_service):
    """Were it taken for one, whoever cancels could make an execution unreadable."""
    lite_service.start_execution(CHAIN, [host.add], execution_id="e")
    lite_service.process_execution("e")
    lite_service.cancel("e", reason="$sealed:aes-siv:00000000:AAAA")
    run(lite_service)
    assert lite_service.get_execution("e")["status"] == "cancelled"
    assert [item["execution_id"] for item in lite_service.list_executions()] == ["e"]


def test_the_archive_is_readable_and_is_not_written_without_the_key(database_url, tmp_path):
    """What is archived is deleted: it must not be lost in the archive."""
    file = tmp_path / "ended.jsonl"
    with open_service(database_url, OLD) as service:
        service.start_execution("await identity(secret)", [host.identity], {"secret": SECRET}, execution_id="e")
        run(service)
    with open_service(database_url) as service, pytest.raises(PayloadUnreadable):
        service.delete_ended(0, archive=file)
    with open_service(database_url, OLD) as service:
        assert service.delete_ended(0, archive=file) == 1
    assert json.loads(file.read_text())["execution"]["output"] == SECRET


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ConfigError, match=r"pip install 'durable-monty-core\[encryption\]'"):
        open_service(f"sqlite:///{tmp_path / 'a.db'}", OLD)


def test_the_command_line_reads_and_rewrites_with_the_keys_of_the_configuration(tmp_path, monkeypatch, capsys):
    (tmp_path / "durable-monty.toml").write_text('[store]\nurl = "sqlite:///test.db"\n')
    monkeypatch.setenv("DURABLE_MONTY_ENCRYPTION_KEY", OLD)
    with OrchestratorService(init_db("sqlite:///test.db"), load()) as service:
        service.start_execution("await identity(secret)", [host.identity], {"secret": SECRET}, execution_id="e")
        run(service)
    monkeypatch.setenv("DURABLE_MONTY_ENCRYPTION_KEY", NEW)
    monkeypatch.setenv("DURABLE_MONTY_PREVIOUS_ENCRYPTION_KEYS", OLD)
    assert said(capsys, "result", "e") == (0, f'"{SECRET}"')
    code, count = said(capsys, "db", "reencrypt")
    assert code == 0
    assert int(count) >= 2
    monkeypatch.delenv("DURABLE_MONTY_PREVIOUS_ENCRYPTION_KEYS")
    assert said(capsys, "result", "e") == (0, f'"{SECRET}"')
    monkeypatch.delenv("DURABLE_MONTY_ENCRYPTION_KEY")
    code, words = said(capsys, "show", "e")
    assert code != 0 or "no encryption is configured here" in words
    assert said(capsys, "db", "reencrypt")[0] == 2


def test_the_pages_about_keys_are_true(tmp_path):
    source = "\n".join(
        re.findall(r"^```python\n(.*?)^```", (PAGES / "encryption.md").read_text(), re.DOTALL | re.MULTILINE)
    )
    (tmp_path / "page.py").write_text(source)
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (table,) = re.findall(r"^```toml\n(.*?)^```", (PAGES / "change-keys.md").read_text(), re.DOTALL | re.MULTILINE)
    chosen = Config.model_validate(tomllib.loads(table))
    assert len(chosen.signing_key.previous) == len(chosen.encryption_keys.previous) == 1


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    found = capsys.readouterr()
    return ended.value.code or 0, (found.out + found.err).strip()


@pytest.mark.parametrize(
    "table",
    [
        {"encryption_key": "short-and-secret"},
        {"previous_encryption_keys": ["short-and-secret"]},
        {"signing_key": "secret"},
        {"previous_signing_keys": ["short-and-secret"]},
        {"signing_key": "x" * 16, "previous_signing_keys": ["secret"]},
        {"signing_key": ["long enough to be a secret"]},
    ],
)
def test_a_key_that_cannot_be_used_is_not_shown(tmp_path, table):
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    (tmp_path / "durable-monty.toml").write_text("\n".join(["[security]", *lines]))
    with pytest.raises(ConfigError) as refused:
        load(cwd=tmp_path, environ={})
    assert "security" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_keys_are_shown_nowhere():
    table = {
        "signing_key": OLD,
        "previous_signing_keys": [NEW],
        "encryption_key": OLD,
        "previous_encryption_keys": [NEW],
    }
    chosen = Config.model_validate({"security": table})
    cipher = AesSiv(AesSiv.Settings(), chosen.encryption_keys)
    shown = f"{chosen!r} {to_display(chosen)} {chosen.signing_key!r} {chosen.signing_key} {chosen.encryption_keys!r} {cipher!r}"
    assert OLD not in shown
    assert NEW not in shown


def test_the_tables_are_those_that_are_rewritten(database_url):
    """A column that the store encrypts and `db reencrypt` does not know would be lost with the old key."""
    with open_service(database_url, OLD) as service:
        whole_story(service)
        service.start_execution("await identity(1)", [host.identity], execution_id="open")
        service.process_execution("open")
    with open_service(database_url, NEW, OLD) as service:
        sum(service.runtime.store.reencrypt())
    old = AesSiv(AesSiv.Settings(), EncryptionKeys(OLD.encode())).key_id.encode()
    assert not [item for item in chain.from_iterable(rows(database_url)) if b":" + old + b":" in item]

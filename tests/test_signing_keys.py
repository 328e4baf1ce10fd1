"""Signing keys that change, and envelopes, replies and snapshots that are forged, swapped, replayed or damaged."""

from __future__ import annotations

import hashlib
import pickle
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from durable_monty import OrchestratorService, Worker, init_db, remote
from durable_monty.config import Config, load
from durable_monty.envelope import decode_envelope, decode_heartbeat, decode_reply, encode_envelope, encode_heartbeat
from durable_monty.errors import DecodeError, SignatureMismatch
from durable_monty.hookspecs import hookimpl
from durable_monty.models import Accepted, Capabilities, Failure, Outcome
from durable_monty.sealing import SnapshotRefused, seal, unseal
from durable_monty.signing import SigningKey
from durable_monty.store.schema import snapshots
from support import functions as host

OLD, NEW = b"the old key, long enough", b"the new key, long enough"
CHAIN = "a = await add(1, 2)\nb = await add(a, 1)\nawait add(b, 1)"
ADD = "support.functions.add"


def config(current=None, *previous):
    table = {"signing_key": current, "previous_signing_keys": list(previous)} if current else {}
    return Config.model_validate({"security": {**table}})


def open_at(url, *keys):
    return OrchestratorService(init_db(url, synchronous="NORMAL"), config(*(key.decode() for key in keys)))


def open_service(file, *keys):
    return open_at(f"sqlite:///{file}", *keys)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.db"


STEPS = [
    ("both sign with the old key", [OLD], [OLD]),
    ("the new one is accepted at one side", [OLD, NEW], [OLD]),
    ("at both", [OLD, NEW], [OLD, NEW]),
    ("one side signs with it", [NEW, OLD], [OLD, NEW]),
    ("the other too", [NEW, OLD], [NEW, OLD]),
    ("the old one is thrown away at one side", [NEW], [NEW, OLD]),
    ("at both", [NEW], [NEW]),
]


@pytest.mark.parametrize(("step", "worker", "machine"), STEPS, ids=[step for step, _, _ in STEPS])
def test_at_every_step_of_a_change_of_keys_both_sides_understand_each_other(step, worker, machine):
    worker_key = SigningKey(worker[0], worker[1:])
    remote.configure(signing_key=machine[0], previous_signing_keys=machine[1:], allow=["support.*"])
    reply = decode_reply(remote.run(encode_envelope("e-0-1", ADD, "[[1,2],{}]", worker_key)), worker_key)
    assert reply.value_text == "3"


def test_a_change_in_one_step_is_refused():
    """So the steps are needed."""
    remote.configure(signing_key=NEW, allow=["support.*"])
    refusal = remote.run(encode_envelope("e-0-1", ADD, "[[1,2],{}]", OLD))
    assert decode_reply(refusal, NEW).failure.kind == "refused"
    with pytest.raises(SignatureMismatch):
        decode_reply(refusal, OLD)


def test_what_is_new_is_signed_with_the_current_key():
    envelope = encode_envelope("e-0-1", ADD, "[[1,2],{}]", SigningKey(NEW, [OLD]))
    assert decode_envelope(envelope, NEW).job_id == "e-0-1"
    with pytest.raises(SignatureMismatch):
        decode_envelope(envelope, OLD)


def test_a_snapshot_of_the_old_key_is_loaded_until_that_key_is_thrown_away(file):
    """Then the execution is rebuilt from its log: a change of keys loses nothing, not even one that came too early."""
    with open_service(file, OLD) as service:
        for name in ("e", "later"):
            service.start_execution(CHAIN, [host.add], execution_id=name)
            service.process_execution(name)
    with open_service(file, NEW, OLD) as service:
        service.complete_call("e", 0, 3)
        service.process_execution("e")
    with open_service(file, NEW) as service:
        Worker(service).run(until_complete=True)
        assert [service.get_result(name) for name in ("e", "later")] == [5, 5]
        assert service.get_execution("e")["note"] is None
        assert "its signature does not fit" in service.get_execution("later")["note"]


@pytest.mark.parametrize(
    "text", [f"{OLD.decode().replace(',', '')} , another old key of many", '["a key, with a comma", "b"]']
)
def test_the_environment_names_the_keys_on_both_sides(monkeypatch, tmp_path, text):
    monkeypatch.setenv("DURABLE_MONTY_SIGNING_KEY", NEW.decode())
    monkeypatch.setenv("DURABLE_MONTY_PREVIOUS_SIGNING_KEYS", text.replace('"b"', '"another key, of many"'))
    key = remote.signing_key()
    assert key == NEW
    assert len(key.previous) == 2
    assert key.previous == load(cwd=tmp_path).signing_key.previous


def test_a_key_goes_to_child_processes_with_those_before_it():
    sent = pickle.loads(pickle.dumps(SigningKey(NEW, [OLD])))
    assert sent == NEW
    assert sent.previous == (OLD,)
    assert "key" not in repr(sent).replace("signing key", "")
    assert OLD.decode() not in f"{sent} {sent!r}"


def _flipped(data):
    for position in range(len(data)):
        for bit in (1, 16, 128):
            yield data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]


MESSAGES = {
    "envelope": (lambda key: encode_envelope("e-0-1", ADD, "[[1,2],{}]", key), decode_envelope),
    "reply": (lambda key: remote.run(encode_envelope("e-0-1", ADD, "[[1,2],{}]", key)), decode_reply),
    "heartbeat": (lambda key: encode_heartbeat("e-0-1", '"half"', key), decode_heartbeat),
}


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("key", [None, SigningKey(NEW, [OLD])])
def test_a_bit_that_flips_is_refused_with_a_key_and_never_more_than_an_error_without(message, key):
    remote.configure(signing_key=key, allow=["support.*"])
    encode, decode = MESSAGES[message]
    whole = encode(key)
    expected = decode(whole, key)
    for damaged in _flipped(whole):
        try:
            found = decode(damaged, key)
        except (SignatureMismatch, DecodeError):
            continue
        # The last byte closes the object and carries nothing; without a key nothing says what was meant.
        assert key is None or found == expected


class Hostile:
    """Runs calls, and answers with what `forge` makes of each reply."""

    capabilities = Capabilities(survives_restart=True, poll_interval_seconds=0.01)

    def __init__(self, forge):
        self._forge = forge
        self._outcomes = []
        self.seen = []
        self.envelopes = []

    @hookimpl
    def start(self, context):
        pass

    @hookimpl
    def submit(self, calls):
        for call in calls:
            reply = remote.run(call.envelope)
            self.envelopes.append(call.envelope)
            self.seen.append((call.job_id, reply))
            self._outcomes += self._forge(self, call.job_id, reply)
        return [Accepted(call.job_id) for call in calls]

    @hookimpl
    def poll(self, jobs, wait_seconds):
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    @hookimpl
    def complete(self, jobs):
        pass


def run_with(file, forge, *keys):
    """Run a chain of three calls; returns how it ended."""
    with open_service(file, *keys) as service:
        service.start_execution(CHAIN, [host.add], execution_id="e")
        Worker(service, Hostile(forge)).run(until_complete=True)
        row = service.get_execution("e")
        calls = [(call.attempt, call.outcome) for call in service.runtime.store.calls("e")]
        return row["status"], row["output"], row["error"], calls


@pytest.mark.parametrize("keys", [(), (NEW, OLD)])
def test_replies_that_come_again_change_nothing(file, keys):
    """All that came before comes again with every reply, for the job it was for."""

    def replay(executor, job_id, reply):
        return [Outcome(*seen[:1], reply=seen[1]) for seen in executor.seen * 2]

    assert run_with(file, replay, *keys) == ("completed", 5, None, [(1, "3"), (1, "4"), (1, "5")])


@pytest.mark.parametrize("keys", [(), (NEW, OLD)])
def test_the_reply_of_an_older_attempt_changes_nothing(file, keys):
    def late(executor, job_id, reply):
        if job_id == "e-0-1":
            return [Outcome(job_id, failure=Failure("lost", "Lost", "it is gone"))]
        return [Outcome("e-0-1", reply=executor.seen[0][1]), Outcome(job_id, reply=reply)]

    assert run_with(file, late, *keys) == ("completed", 5, None, [(2, "3"), (1, "4"), (1, "5")])


@pytest.mark.parametrize("keys", [(), (NEW, OLD)])
def test_the_reply_of_another_job_is_not_taken_for_this_ones(file, keys):
    """A signature says who wrote it; the job id under the signature says what for."""

    def swap(executor, job_id, reply):
        return [Outcome(job_id, reply=executor.seen[0][1])]

    status, _, error, calls = run_with(file, swap, *keys)
    assert status == "failed"
    assert "is of job 'e-0-1'" in error
    assert calls[0] == (1, "3")


def test_with_a_key_a_forged_reply_is_refused_and_said(file, caplog):
    def forge(executor, job_id, reply):
        return [Outcome(job_id, reply=reply.replace(b'"value":3', b'"value":4'))]

    status, _, error, _ = run_with(file, forge, NEW, OLD)
    assert status == "failed"
    assert "its signature does not fit" in error
    assert "reply refused" in caplog.text
    assert NEW.decode() not in caplog.text + error


@pytest.mark.parametrize("key", [None, SigningKey(NEW, [OLD])])
def test_a_snapshot_with_a_flipped_bit_is_refused_wherever_it_is(key):
    whole = seal("e", 3, b"state " * 10, "1.4.0", key)
    assert unseal("e", 3, whole, key) == b"state " * 10
    for data in _flipped(whole.data):
        with pytest.raises(SnapshotRefused, match="does not fit"):
            unseal("e", 3, replace(whole, data=data), key)
    for digest in _flipped(whole.digest):
        with pytest.raises(SnapshotRefused, match="does not fit"):
            unseal("e", 3, replace(whole, digest=digest), key)


@pytest.mark.parametrize("keys", [(), (NEW, OLD)])
def test_an_execution_whose_snapshot_has_a_flipped_bit_is_rebuilt_from_the_log(file, keys):
    with open_service(file, *keys) as service:
        service.start_execution(CHAIN, [host.add], execution_id="e")
        service.process_execution("e")
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        (data,) = connection.execute("SELECT snapshot FROM snapshots").fetchone()
        middle = len(data) // 2
        damaged = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        connection.execute("UPDATE snapshots SET snapshot = ?", (damaged,))
    with open_service(file, *keys) as service:
        Worker(service).run(until_complete=True)
        assert service.get_result("e") == 5
        assert "does not fit" in service.get_execution("e")["note"]


def test_without_a_key_a_forged_snapshot_that_cannot_be_unpacked_is_rebuilt(file):
    """Anybody can make the digest that fits; the worker goes on all the same."""
    with open_service(file) as service:
        service.start_execution(CHAIN, [host.add], execution_id="e")
        service.process_execution("e")
        version = service.runtime.store.execution("e").version
    for data in (b"\x01 no zlib stream", b"\x00 no dump"):
        digest = hashlib.sha256(f"e\n{version}\n".encode() + data).digest()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("UPDATE snapshots SET snapshot = ?, digest = ?", (data, digest))
    with open_service(file) as service:
        Worker(service).run(until_complete=True)
        assert service.get_result("e") == 5
        assert "rebuilt from the log" in service.get_execution("e")["note"]


def snapshot_of(service, name):
    """A row of the database, to be put elsewhere."""
    with service.runtime.store._connections.read() as connection:
        row = connection.execute(select(snapshots).where(snapshots.c.execution_id == name)).mappings().one()
    return {column: row[column] for column in ("version", "monty_version", "format", "digest", "snapshot")}


def for_this_turn(service, name, row):
    return row | {"version": service.runtime.store.execution(name).version}


def another_executions(service, name):
    return snapshot_of(service, "other")


def another_executions_for_this_turn(service, name):
    return for_this_turn(service, name, snapshot_of(service, "other"))


def of_an_earlier_turn(service, name):
    earlier = snapshot_of(service, name)
    service.complete_call(name, 0, 3)
    service.process_execution(name)
    assert snapshot_of(service, name)["version"] > earlier["version"]
    return earlier


def of_an_earlier_turn_for_this_turn(service, name):
    return for_this_turn(service, name, of_an_earlier_turn(service, name))


def signed_with_a_foreign_key(service, name):
    stored = service.runtime.store.snapshot(name)
    state = unseal(name, stored.version, stored, service.runtime.config.signing_key)
    forged = seal(name, stored.version, state, stored.monty_version, b"the key of somebody else")
    return snapshot_of(service, name) | {"digest": forged.digest, "snapshot": forged.data}


def with_the_digest_that_anybody_can_make(service, name):
    """Without a key this is the one that is believed, as the page about encryption says."""
    found = snapshot_of(service, name)
    sealed = f"{name}\n{found['version']}\n".encode() + found["snapshot"]
    return found | {"digest": hashlib.sha256(sealed).digest()}


FORGED = [
    another_executions,
    another_executions_for_this_turn,
    of_an_earlier_turn,
    of_an_earlier_turn_for_this_turn,
    signed_with_a_foreign_key,
]


@pytest.mark.parametrize("keys", [(), (NEW, OLD)])
def test_a_snapshot_that_was_swapped_replayed_or_forged_is_refused_and_rebuilt(database_url, keys):
    forgeries = [*FORGED, with_the_digest_that_anybody_can_make] if keys else FORGED
    names = [forge.__name__ for forge in forgeries]
    with open_at(database_url, *keys) as service:
        for name, first in ("other", 10), *((name, 1) for name in names):
            service.start_execution(CHAIN.replace("1, 2", f"{first}, 2"), [host.add], execution_id=name)
            service.process_execution(name)
        for name, forge in zip(names, forgeries, strict=True):
            forged = forge(service, name)
            with service.runtime.store._connections.write() as connection:
                connection.execute(update(snapshots).where(snapshots.c.execution_id == name).values(forged))
    with open_at(database_url, *keys) as service:
        Worker(service).run(until_complete=True)
        assert service.get_result("other") == 14
        assert service.get_execution("other")["note"] is None
        for name in names:
            assert service.get_result(name) == 5
            assert "rebuilt from the log" in service.get_execution(name)["note"], name


@pytest.mark.parametrize("keys", [(), (NEW, OLD)])
def test_an_envelope_that_comes_again_runs_again_and_changes_nothing(database_url, keys):
    """As any call may: the function is run at least once, and the outcome that came first counts."""
    with open_at(database_url, *keys) as service:
        runs = []

        def replay(executor, job_id, reply):
            runs.append(job_id)
            again = remote.run(executor.envelopes[0])
            return [Outcome(job_id, reply=reply), Outcome(executor.seen[0][0], reply=again)]

        service.start_execution(CHAIN, [host.add], execution_id="e")
        Worker(service, Hostile(replay)).run(until_complete=True)
        assert service.get_result("e") == 5
        assert runs == ["e-0-1", "e-1-1", "e-2-1"]
        assert [call.attempt for call in service.runtime.store.calls("e")] == [1, 1, 1]

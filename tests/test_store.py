"""What the store promises, on both databases: one holder, one outcome, and nothing of a turn that was overtaken."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select, text

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config
from durable_monty.errors import ConfigError, SchemaMismatch, StoreUnreachable
from durable_monty.identity import new_identity
from durable_monty.models import CallStatus, ExecutionStatus, Failure
from durable_monty.records import CallKind, CallRow, Delivery, NextAttempt, Settlement, Snapshot, Turn
from durable_monty.store import commit_postgresql, step_postgresql
from durable_monty.store.indexes import metadata
from durable_monty.store.listing import Filter
from durable_monty.store.schema import calls, executions, snapshots
from support import functions as host

SNAPSHOT = Snapshot(1, "1.4.0", 1, b"digest", b"state \x00\xff")
NOW = 1_000.0


def start(store, *names):
    service = OrchestratorService(store, Config())
    for name in names:
        service.start_execution("await add(1, 2)", [host.add], execution_id=name)


def call(call_id, **options):
    return CallRow(call_id, CallKind.FUNCTION, "support.functions.add", "[[1,2],{}]", CallStatus.SUBMITTING, **options)


def turn(name, version=0, **options):
    return Turn(name, version, ExecutionStatus.WAITING, is_kept=True, snapshot=SNAPSHOT, at=NOW, **options)


def settlement(name, call_id=0, attempt=1, value="3"):
    return Settlement(name, call_id, attempt, CallStatus.COMPLETED, value, NOW)


@pytest.fixture
def waiting(store):
    """A store with one execution, `e`, that worker `w` holds and that waits for call 0."""
    start(store, "e")
    store.claim("w", time.time(), 10)
    result = store.commit("w", [], [turn("e", calls=[call(0, worker="w")])], [], NOW)
    assert not result.stale
    return store


def test_a_turn_makes_its_calls_and_its_snapshot_durable_together(waiting):
    (row,) = waiting.calls("e")
    assert (row.status, row.worker, row.arguments) == (CallStatus.SUBMITTING, "w", "[[1,2],{}]")
    assert waiting.snapshot("e") == SNAPSHOT
    assert waiting.execution("e").version == 1


def test_a_turn_that_was_overtaken_records_nothing(waiting):
    late = turn("e", version=0, calls=[call(1)], deliveries=[Delivery(0, 0, 0)])
    result = waiting.commit("w", [], [late], [], NOW)
    assert result.stale == {"e"}
    assert [row.call_id for row in waiting.calls("e")] == [0]
    assert waiting.calls("e")[0].batch is None
    assert waiting.execution("e").version == 1


def test_a_worker_that_lost_its_claim_records_nothing(waiting):
    """A paused process that wakes up after its lease must not write over its heir, even before the heir's first turn."""
    waiting.release("w", ["e"], {"e"}, NOW)
    assert [item.row.id for item in waiting.claim("heir", NOW, 10)] == ["e"]
    assert waiting.commit("w", [], [turn("e", version=1, calls=[call(1)])], [], NOW).stale == {"e"}
    assert len(waiting.calls("e")) == 1
    assert not waiting.commit("heir", [], [turn("e", version=1, calls=[call(1)])], [], NOW).stale


def test_an_outcome_is_recorded_although_the_turn_with_it_was_overtaken(waiting):
    late = turn("e", version=0, deliveries=[Delivery(0, 0, 0)])
    result = waiting.commit("w", [settlement("e")], [late], [], NOW)
    assert result.stale == {"e"}
    assert not result.ignored
    (row,) = waiting.calls("e")
    assert (row.status, row.outcome, row.batch) == (CallStatus.COMPLETED, "3", None)
    assert waiting.execution("e").wake_at is not None, "whoever holds it is told"


def test_an_outcome_without_a_turn_wakes_whoever_holds_the_execution_now(waiting):
    """A worker that was taken over while it was stopped still takes itself for the holder."""
    before = waiting.execution("e").wake_at
    assert waiting.commit("w", [settlement("e", call_id=5)], [], [], NOW).stale == frozenset()
    assert waiting.execution("e").wake_at == before, "it is the holder's own: nobody has to be told"
    waiting.release("w", ["e"], set(), NOW)
    waiting.claim("heir", NOW, 1, ["e"])
    assert waiting.commit("w", [settlement("e")], [], [], NOW).stale == {"e"}
    assert waiting.execution("e").wake_at == NOW
    assert waiting.execution("e").worker == "heir"


def test_the_outcome_that_came_first_stays(waiting):
    waiting.commit("w", [settlement("e", value="3")], [], ["e"], NOW)
    result = waiting.commit("w", [settlement("e", value="4")], [], ["e"], NOW)
    assert len(result.ignored) == 1
    assert waiting.call("e", 0).outcome == "3"


def test_tokens_of_several_calls_are_stored_together_and_calls_put_back_together(store):
    """As they come from an executor that was given a batch."""
    start(store, "e")
    store.claim("w", time.time(), 10)
    store.commit("w", [], [turn("e", calls=[call(number, worker="w") for number in range(3)])], [], NOW)
    store.store_tokens({("e", 0, 1): "first", ("e", 1, 1): "second"})
    assert [(row.status, row.token) for row in store.calls("e")] == [
        (CallStatus.SUBMITTED, "first"),
        (CallStatus.SUBMITTED, "second"),
        (CallStatus.SUBMITTING, None),
    ]
    store.put_back([("e", 1, 1), ("e", 2, 1), ("e", 0, 7)], NOW + 1)
    statuses = [row.status for row in store.calls("e")]
    assert statuses == [CallStatus.SUBMITTED, CallStatus.PENDING, CallStatus.PENDING], "and no other attempt"


def test_a_delivery_is_not_lost_if_another_worker_has_recorded_the_same_outcome_at_the_same_time(waiting):
    """The turn is not recorded; the outcome is delivered from the log."""
    waiting.commit("other", [settlement("e")], [], ["e"], NOW)
    mine = turn("e", version=1, deliveries=[Delivery(0, 0, 0)], calls=[call(1)])
    assert waiting.commit("w", [settlement("e"), settlement("e", call_id=7)], [mine], [], NOW).stale == {"e"}
    assert [(row.call_id, row.batch) for row in waiting.calls("e")] == [(0, None)]


def test_what_follows_from_a_turn_is_not_recorded_without_it(store):
    """The end of a child for its parent, and the losers of a race: the turn delivered what somebody else has ended."""
    start(store, "parent", "child")
    store.claim("w", time.time(), 10)
    began = [turn(name, calls=[call(0, worker="w"), call(1, worker="w")]) for name in ("parent", "child")]
    store.commit("w", [], began, [], NOW)
    store.commit("other", [settlement("child", value="9")], [], ["child"], NOW)
    follows = [replace(settlement("parent"), requires="child"), replace(settlement("child", 1), requires="child")]
    ends = turn("child", version=1, deliveries=[Delivery(0, 0, 0), Delivery(1, 1, 0)])
    assert store.commit("w", [settlement("child"), *follows], [ends], [], NOW).stale == {"child"}
    assert store.calls("parent")[0].status == "submitting"
    assert [row.outcome for row in store.calls("child")] == ["9", None]


def test_an_outcome_of_an_attempt_that_is_over_is_ignored(waiting):
    following = NextAttempt("e", 0, 1, Failure("lost", "Lost", "gone"), NOW + 1, NOW, lost=1)
    assert not waiting.reattempt([following])
    assert waiting.commit("w", [settlement("e", attempt=1)], [], [], NOW).ignored
    row = waiting.call("e", 0)
    assert (row.status, row.attempt, row.lost) == (CallStatus.PENDING, 2, 1)
    assert waiting.reattempt([following]), "and so is its failure"
    assert len(waiting.failed_attempts("e")) == 1


def test_an_outcome_of_a_call_that_never_was_is_ignored(waiting):
    assert waiting.commit("w", [settlement("e", 7), settlement("nobody", 0)], [], [], NOW).ignored


def test_a_wake_up_that_somebody_asked_for_during_a_turn_is_kept(waiting):
    waiting.commit("other", [settlement("e")], [], ["e"], NOW)
    woken_at = waiting.execution("e").wake_at
    waiting.commit("w", [], [turn("e", version=1, seen_wake_at=None, wake_at=None)], [], NOW)
    assert waiting.execution("e").wake_at == woken_at


def test_two_workers_that_claim_at_once_never_get_the_same_execution(store):
    """Several threads begin to claim at the same moment, many times over."""
    names = [f"e{n}" for n in range(30)]
    start(store, *names)
    got: dict[str, list[str]] = {f"w{n}": [] for n in range(4)}
    barrier = threading.Barrier(len(got))

    def claim(worker):
        barrier.wait()
        while claimed := store.claim(worker, time.time(), 3):
            got[worker] += [item.row.id for item in claimed]
            store.commit(worker, [], [turn(item.row.id, seen_wake_at=item.row.wake_at) for item in claimed], [], NOW)

    threads = [threading.Thread(target=claim, args=(worker,)) for worker in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for claimed in got.values() for name in claimed) == sorted(names)


def test_a_claim_does_not_wait_for_rows_that_another_transaction_holds(postgresql_url):
    """`SKIP LOCKED`: the interleaving is forced by a transaction that stays open."""
    store = init_db(postgresql_url)
    start(store, "held", "free")
    engine = create_engine(postgresql_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("SELECT * FROM executions WHERE id = 'held' FOR UPDATE"))
        assert [item.row.id for item in store.claim("w", time.time(), 10)] == ["free"]
    assert [item.row.id for item in store.claim("w2", time.time(), 10)] == ["held"]
    engine.dispose()
    store.close()


def test_two_workers_never_advance_one_execution_at_once(store):
    """Both claim it, the second after a take-over that the first does not know of; only one turn counts."""
    start(store, "e")
    first, second = new_identity(), new_identity()
    store.register(first, NOW)
    (claimed,) = store.claim(first.id, time.time(), 1)
    assert store.claim(second.id, time.time(), 1) == []
    assert store.take_over(first.id, NOW, second.id, NOW) == []
    (again,) = store.claim(second.id, time.time(), 1)
    assert again.row.version == claimed.row.version
    results = [store.commit(worker.id, [], [turn("e", calls=[call(0)])], [], NOW) for worker in (second, first)]
    assert [result.stale for result in results] == [frozenset(), {"e"}]


def test_a_worker_that_renewed_its_lease_is_not_taken_over(store):
    alive, heir = new_identity(), new_identity()
    store.register(alive, NOW)
    store.register(alive, NOW + 15)
    assert store.take_over(alive.id, NOW, heir.id, NOW + 1) is None
    assert len(store.list_workers()) == 1


def test_a_worker_that_was_taken_for_dead_claims_nothing_until_it_has_renewed_its_lease(waiting):
    """If it died after a claim that nobody knows of, that would be held for ever."""
    mine, other = new_identity(), new_identity()
    waiting.register(mine, NOW)
    waiting.register(other, NOW)
    assert waiting.take_over(mine.id, NOW, "heir", NOW + 1) == []
    assert mine.id not in [identity.id for identity, _ in waiting.list_workers()]
    waiting.release("w", ["e"], {"e"}, NOW)
    waiting.put_back([("e", 0, 1)], NOW)
    executor = waiting.calls("e")[0].executor
    assert waiting.claim(mine.id, NOW + 2, 10) == []
    assert waiting.claim_calls(mine.id, executor, NOW + 2, 10) == []
    assert waiting.take_over(other.id, NOW, mine.id, NOW + 2) is None
    waiting.register(mine, NOW + 20)
    assert [item.row.id for item in waiting.claim(mine.id, NOW + 2, 10)] == ["e"]
    assert waiting.take_over(other.id, NOW, mine.id, NOW + 2) == []


def test_nor_does_it_claim_calls_that_share_a_limit(waiting):
    mine = new_identity()
    waiting.register(mine, NOW)
    limited = replace(
        call(1, executor="local", limit_key="key", policy={"concurrency": 1}, due_at=NOW), status=CallStatus.PENDING
    )
    waiting.commit("w", [], [turn("e", version=1, calls=[limited])], [], NOW)
    assert waiting.take_over(mine.id, NOW, "heir", NOW + 1) == []
    assert waiting.limits.claim(mine.id, "local", NOW + 2, 10).calls == []
    waiting.register(mine, NOW + 20)
    assert [due.row.call_id for due in waiting.limits.claim(mine.id, "local", NOW + 2, 10).calls] == [1]


def test_the_jobs_of_a_dead_worker_go_to_one_heir(waiting):
    dead = new_identity()
    waiting.register(dead, NOW)
    waiting.release("w", ["e"], {"e"}, NOW)
    waiting.claim(dead.id, NOW, 1)
    waiting.commit(dead.id, [], [turn("e", version=1, calls=[call(1, worker=dead.id)])], [], NOW)
    (job,) = waiting.take_over(dead.id, NOW, "heir", NOW)
    assert (job.execution_id, job.row.call_id, job.row.worker) == ("e", 1, "heir")
    assert waiting.take_over(dead.id, NOW, "late heir", NOW) is None
    assert waiting.execution("e").worker is None


def test_tokens_are_stored_and_calls_put_back_many_at_a_time(store):
    """One transaction whatever there is; attempts that are over stay what they are."""
    start(store, "e")
    store.claim("w", time.time(), 10)
    store.commit("w", [], [turn("e", calls=[call(number, worker="w") for number in range(4)])], [], NOW)
    store.store_tokens({("e", 0, 1): "a", ("e", 1, 1): "b", ("e", 2, 2): "another attempt"})
    store.put_back([("e", 1, 1), ("e", 3, 1)], NOW)
    found = [(row.status.value, row.token, row.worker) for row in store.calls("e")]
    assert found == [
        ("submitted", "a", "w"),
        ("pending", "b", None),
        ("submitting", None, "w"),
        ("pending", None, None),
    ]


def test_pending_calls_are_claimed_once_the_oldest_first(waiting):
    pending = [call(n, executor="x", due_at=NOW - n) for n in (1, 2, 3)]
    for row in pending:
        row.status = CallStatus.PENDING
    waiting.commit("w", [], [turn("e", version=1, calls=pending)], [], NOW)
    assert waiting.pending_executors(NOW) == {"x"}
    assert {due.row.call_id for due in waiting.claim_calls("w", "x", NOW, 2)} == {2, 3}
    assert [due.row.call_id for due in waiting.claim_calls("v", "x", NOW, 2)] == [1]
    assert waiting.claim_calls("w", "other", NOW, 2) == []


def test_many_attempts_are_put_back_and_get_their_tokens_in_one_statement(waiting):
    waiting.commit("w", [], [turn("e", version=1, calls=[call(n, worker="w") for n in (1, 2, 3)])], [], NOW)
    waiting.store_tokens({("e", 1, 1): "one", ("e", 2, 1): "two"})
    waiting.put_back([("e", 0, 1), ("e", 3, 1), ("e", 3, 2)], NOW + 1)
    rows = {row.call_id: (row.status, row.token, row.due_at) for row in waiting.calls("e")}
    assert rows == {
        0: ("pending", None, NOW + 1),
        1: ("submitted", "one", None),
        2: ("submitted", "two", None),
        3: ("pending", None, NOW + 1),
    }


def test_executions_are_listed_the_newest_first_in_pages(store):
    start(store, "a", "b", "c")
    first = store.listing.executions(Filter(), limit=2)
    rest = store.listing.executions(Filter(before=(first[-1].created_at, first[-1].id)), limit=2)
    assert [row.id for row in (*first, *rest)] == ["c", "b", "a"]
    assert store.listing.executions(Filter(status="completed"), limit=2) == []


def test_a_notification_reaches_another_process_at_once(postgresql_url):
    """The listener has a connection of its own, as in another process; nothing polls."""
    store, other = init_db(postgresql_url), init_db(postgresql_url)
    rung = threading.Event()
    watch = store.watch(rung.set)
    assert rung.wait(10), "what came before it listened is looked for"
    rung.clear()
    start(other, "e")
    assert rung.wait(10)
    watch.close()
    store.close()
    other.close()


def test_sqlite_syncs_every_commit_unless_told_otherwise(tmp_path):
    for synchronous, number in (("FULL", 2), ("NORMAL", 1)):
        store = init_db(f"sqlite:///{tmp_path / synchronous}.db", synchronous=synchronous)
        with store._connections.write() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar() == number
        store.close()


def test_a_database_that_is_newer_than_the_code_is_refused_untouched(database_url):
    init_db(database_url).close()
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaMismatch, match=r"9999.*(newer|install)"):
        init_db(database_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    engine.dispose()


def test_tables_of_others_are_left_alone(database_url):
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE mine (n int)"))
        connection.execute(text("INSERT INTO mine VALUES (7)"))
    init_db(database_url).close()
    with engine.begin() as connection:
        assert connection.execute(text("SELECT n FROM mine")).scalar() == 7
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("sqlite:////nonexistent/folder/a.db", StoreUnreachable, "create the folder"),
        ("postgresql://user:secret@127.0.0.1:1/x", StoreUnreachable, "check that the server runs"),
        ("mysql://host/x", ConfigError, "sqlite and postgresql"),
        ("nonsense", ConfigError, "sqlite:///"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_with_what_to_do(url, error, words):
    with pytest.raises(error) as raised:
        init_db(url)
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)


def test_attempts_that_were_not_accepted_are_put_back_together(store):
    """Several calls of one batch in one statement."""
    start(store, "e")
    store.claim("w", time.time(), 10)
    store.commit("w", [], [turn("e", calls=[call(number, worker="w") for number in range(3)])], [], NOW)
    store.store_tokens({("e", 0, 1): "t0", ("e", 1, 1): "t1"})
    assert [row.token for row in store.calls("e")] == ["t0", "t1", None]
    store.put_back([("e", number, 1) for number in range(3)], NOW)
    assert [(row.status, row.due_at) for row in store.calls("e")] == [("pending", NOW)] * 3


def test_an_outcome_takes_the_times_of_its_call_away(store):
    """Calls that have ended must not be looked at for ever."""
    start(store, "e")
    store.claim("w", time.time(), 10)
    store.commit("w", [], [turn("e", calls=[call(number, expires_at=NOW) for number in range(2)])], [], NOW)
    assert store.survey("w", NOW - 1).next_at == NOW
    store.commit("w", [settlement("e", 0)], [], [], NOW)
    ended = Turn("e", 1, ExecutionStatus.FAILED, error="no", cancelled=[1], at=NOW)
    store.commit("w", [], [ended], [], NOW)
    assert store.survey("w", 0.0).next_at is None
    assert store.times.overdue("w", NOW + 1, 10) == []


def test_the_commit_is_short_enough_to_be_parsed_once():
    """psycopg keeps what it has parsed of statements of up to 4,096 characters, and parses longer ones at each step."""
    assert len(commit_postgresql._COMMIT) <= 4096
    largest = step_postgresql._statement(True, True, True, False)
    assert len(largest) <= 4096
    # It has another limit for that too.
    assert len(set(re.findall(r"%\((\w+)\)s", largest))) <= 50


def recorded(store):
    """Everything that turns change, without ids of databases."""
    with store._connections.engine.connect() as connection:
        return [
            [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key)).all()]
            for table in (executions, calls, snapshots)
        ]


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("version", [1, 7])
def test_a_step_is_recorded_as_any_turn_is(store, monkeypatch, attempt, version):
    """On PostgreSQL it has a statement of its own; the same comes of it, also if the turn is stale or its outcome late."""
    both = []
    for is_general in (True, False):
        if is_general:
            monkeypatch.setattr(commit_postgresql, "is_step", lambda *_: False)
        else:
            monkeypatch.undo()
        service = OrchestratorService(store, Config(), clock=lambda: NOW)
        service.start_execution("await add(1, 2)", [host.add], execution_id="e")
        assert store.claim("w", NOW, 10)
        store.commit("w", [], [turn("e", calls=[call(0)])], [], NOW)
        delivered = turn("e", version=version, calls=[call(1)], deliveries=[Delivery(0, 1, 0)], next_batch=2)
        first = store.commit("w", [settlement("e", 0, attempt=attempt)], [delivered], [], NOW)
        over = Turn("e", 2, ExecutionStatus.COMPLETED, output="7", deliveries=[Delivery(1, 2, 0)], next_batch=3, at=NOW)
        last = store.commit("w", [settlement("e", 1)], [over], [], NOW)
        both.append((first, last, recorded(store)))
        with store._connections.engine.begin() as connection:
            for table in (executions, calls, snapshots):
                connection.execute(table.delete())
    assert both[0] == both[1]
    assert (both[0][0].stale == frozenset()) == (attempt == 1 and version == 1)


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_the_migrations_make_the_tables_and_indexes_that_are_declared(store):
    with store._connections.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    # Neither database tells of an index on an expression what was declared.
    assert [item for item in differences if not is_of_expression(item)] == []


def is_of_expression(difference):
    return str(difference[0]).endswith("_index") and difference[1].name in ("calls_rank", "calls_limited")

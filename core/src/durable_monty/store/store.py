"""The store: everything in the database, behind methods that are one transaction each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy import Engine as DatabaseEngine

from durable_monty.encryption import Cipher
from durable_monty.errors import ExecutionNotFound
from durable_monty.models import CallStatus, ExecutionStatus
from durable_monty.records import (
    CallRow,
    Claimed,
    CommitResult,
    DueCall,
    ExecutionRow,
    NextAttempt,
    Settlement,
    Snapshot,
    Turn,
    WorkerIdentity,
    WorkflowRecord,
)
from durable_monty.store import commit_postgresql, commit_sqlite
from durable_monty.store.attempts import record_attempts
from durable_monty.store.changes import ENDED_CHANNEL, PostgresqlChanges, SqliteChanges
from durable_monty.store.claiming import Claiming
from durable_monty.store.clock import DatabaseClock
from durable_monty.store.commit_sqlite import LateDelivery
from durable_monty.store.connections import Connections
from durable_monty.store.effects import has_effects, perform
from durable_monty.store.engines import shown
from durable_monty.store.examining import Examining
from durable_monty.store.fixed import MAY_CLAIM, Fixed
from durable_monty.store.limits import Limits
from durable_monty.store.listing import Listing
from durable_monty.store.notices import tell
from durable_monty.store.reencryption import reencrypt
from durable_monty.store.retention import Retention
from durable_monty.store.rows import (
    EXECUTION_COLUMNS,
    call_row,
    execution_row,
    workflow_record,
)
from durable_monty.store.schedules import Schedules
from durable_monty.store.schema import OPEN_STATUSES, attempts, calls, executions, workers, workflows
from durable_monty.store.signals import UnreadableSignal
from durable_monty.store.starting import Starting
from durable_monty.store.steering import Steering
from durable_monty.store.survey import Survey, survey
from durable_monty.store.telling import Telling
from durable_monty.store.times import Times
from durable_monty.store.transactions import CallTransactions
from durable_monty.store.vault import UNREADABLE_DELAY_SECONDS, UNREADABLE_NOTE, failure_of
from durable_monty.texts import is_storable

_AT_EXECUTOR = (CallStatus.SUBMITTING.value, CallStatus.SUBMITTED.value)
_SELECT_EXECUTION = f"SELECT {', '.join(EXECUTION_COLUMNS)} FROM executions WHERE id = :id"
_EXECUTION = Fixed(_SELECT_EXECUTION)
_LOCKED_EXECUTION = Fixed(_SELECT_EXECUTION + " {FOR UPDATE}")
_TAKE_OVER = Fixed(f"""
UPDATE workers SET lease_until = :taken_at WHERE id = :dead AND lease_until = :lease_until AND {MAY_CLAIM} RETURNING id
""")
# Not `in_`: SQLAlchemy does not take that for several rows of parameters at once.
_AT_EXECUTOR_STILL = update(calls).where(
    calls.c.execution_id == bindparam("of_execution"),
    calls.c.call_id == bindparam("of_call"),
    calls.c.attempt == bindparam("of_attempt"),
    or_(*(calls.c.status == status for status in _AT_EXECUTOR)),
)
_ALIVE = (ExecutionStatus.SCHEDULED.value, ExecutionStatus.RUNNING.value, ExecutionStatus.WAITING.value)
# Stays below the limit of parameters in one statement of older SQLite libraries.
_IN_LIMIT = 500
_REMEMBERED_SECONDS = 86400.0


class Store:
    """A database at the current schema. Safe to use from several threads; made by `init_db` or `open_store`."""

    def __init__(self, engine: DatabaseEngine, connections: Connections | None = None) -> None:
        self._connections = connections or Connections(engine)
        self.clock = DatabaseClock(self._connections)
        self.times = Times(self._connections)
        self.limits = Limits(self._connections)
        self._workflows: dict[str, WorkflowRecord] = {}
        self._claiming = Claiming(self._connections, self._workflow)
        self.starting = Starting(self._connections)
        self.listing = Listing(self._connections)
        self.schedules = Schedules(self._connections)
        self.retention = Retention(self._connections)
        self.examining = Examining(self._connections)
        self.steering = Steering(self._connections, self._execution)
        self.telling = Telling(self._connections, self._execution)
        self._commit = commit_postgresql.commit if self._connections.is_postgresql else commit_sqlite.commit

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def url(self) -> str:
        """The database's URL without its password."""
        return shown(self._connections.engine.url)

    @property
    def is_shared(self) -> bool:
        """Whether other processes can use the same database."""
        return not self._connections.is_in_memory

    def encrypt(self, cipher: Cipher, name: str) -> None:
        """Encrypt what is stored from now on, if the cipher has a current key, and read what it has encrypted.

        Args:
            name: The cipher's name in the configuration.
        """
        self._connections.vault.use(cipher, name)

    def reencrypt(self, *, is_plain: bool = False) -> Iterator[int]:
        """Rewrite what is stored with the current key, in small transactions; see `durable_monty.store.reencryption`."""
        return reencrypt(self._connections, is_plain=is_plain)

    def watch(self, notified: Callable[[], None]) -> SqliteChanges | PostgresqlChanges | None:
        """Notice writes of other processes; None where there can be none.

        Args:
            notified: Called from another thread for each notification, where the database notifies.
        """
        if not self.is_shared:
            return None
        if self._connections.is_postgresql:
            return PostgresqlChanges(self._connections.engine, notified)
        return SqliteChanges(self._connections.data_version)

    def watch_ends(self, notified: Callable[[], None]) -> SqliteChanges | PostgresqlChanges | None:
        """As `watch`, for the ends of executions, whoever brings them about."""
        if self._connections.is_postgresql:
            return PostgresqlChanges(self._connections.engine, notified, ENDED_CHANNEL)
        return self.watch(notified)

    def announcing(self, committed: Callable[[Collection[str] | None], None]) -> AbstractContextManager[None]:
        """Within the block, `committed` is called with the executions that this process ends, or None: it may be any."""
        return self._connections.announcing(committed)

    def transactions(self, settled: Callable[[], None], clock: Callable[[], float]) -> CallTransactions:
        """For functions that write to this database in the transaction that records their outcome.

        Args:
            settled: Called after each commit, from any thread.
        """
        return CallTransactions(self._connections, settled, clock)

    def close(self) -> None:
        """Close this process's connections; the store opens new ones if it is used again."""
        self._connections.close()

    # Starting

    def is_checked(self, digest: str) -> bool:
        """Whether this workflow has passed the check at submit before."""
        query = select(workflows.c.checked_at).where(workflows.c.digest == digest)
        with self._connections.read() as connection:
            return connection.scalar(query) is not None

    # Turns

    def commit(
        self,
        worker: str,
        settlements: Sequence[Settlement],
        turns: Sequence[Turn],
        wake: Collection[str],
        now: float,
    ) -> CommitResult:
        """Make outcomes and turns durable in one transaction.

        A turn is recorded only if its execution still has the version that the turn started from and is held by
        `worker`; a settlement only if its call is open and its attempt the current one. Nothing else of a stale
        turn is recorded, but settlements are, and a stale execution is woken. So is one that gets an outcome without a
        turn if another worker holds it; it counts as stale as well. An execution that begins to wait for a signal which
        is there and cannot be decrypted here is stale too, and tried again later.

        Args:
            wake: Executions that got an outcome without a turn, so that whoever may advance them does.

        Raises:
            StoreUnreachable: It is not known whether the transaction happened.
        """
        if not settlements and not turns and not wake:
            return CommitResult(frozenset(), frozenset())
        blocked: set[str] = set()
        unreadable: dict[str, str] = {}
        while True:
            recordable = [turn for turn in turns if turn.execution_id not in blocked]
            wanted = [item for item in settlements if item.requires is None or item.requires not in blocked]
            try:
                result = self._commit_turns(worker, wanted, recordable, {*wake, *blocked}, now)
            except LateDelivery as late:
                blocked |= late.executions
            except UnreadableSignal as signal:
                unreadable[signal.execution_id] = signal.reason
                blocked.add(signal.execution_id)
            else:
                for execution_id, reason in unreadable.items():
                    self.defer(worker, execution_id, now + UNREADABLE_DELAY_SECONDS, reason)
                return replace(result, stale=result.stale | blocked)

    def _commit_turns(
        self,
        worker: str,
        settlements: Sequence[Settlement],
        turns: Sequence[Turn],
        wake: Collection[str],
        now: float,
    ) -> CommitResult:
        asking = [turn for turn in turns if has_effects(turn)]
        vault = self._connections.vault
        stored: Sequence[Turn] = turns
        if vault.is_hiding:
            settlements = [vault.hide_settlement(item) for item in settlements]
            stored = [vault.hide_turn(turn) for turn in turns]
        if not asking:
            with self._connections.write_at_once() as connection:
                result = self._commit(connection, worker, settlements, stored, wake, now)
            ended = [turn.execution_id for turn in turns if turn.status.is_terminal]
            if ended:
                self._connections.announce(ended)
            return result
        with self._connections.write() as connection:
            result = self._commit(connection, worker, settlements, stored, wake, now)
            recorded = [turn for turn in asking if turn.execution_id not in result.stale]
            is_more = perform(connection, recorded, lambda digest: self._workflow(connection, digest), now)
            if is_more:
                tell(connection)
            return replace(result, is_more=is_more)

    def claim(self, worker: str, now: float, limit: int, ids: Collection[str] | None = None) -> list[Claimed]:
        """Claim executions that nobody else holds and load what a turn needs.

        Args:
            ids: These, whether they are due or not; None: those whose wake-up time has come, the oldest first.
        """
        return self._claiming.claim(worker, now, limit, ids)

    def survey(self, worker: str, now: float) -> Survey:
        """What is due for a worker, and when to look again; a read that disturbs nobody."""
        return survey(self._connections, worker, now)

    def children_by_call(self, execution_id: str) -> dict[int, str]:
        """The ids of the children that an execution waits for, by the call that does."""
        query = select(executions.c.parent_call, executions.c.id).where(
            executions.c.parent == execution_id, executions.c.parent_call.isnot(None)
        )
        with self._connections.read() as connection:
            return {row.parent_call: row.id for row in connection.execute(query)}

    def release(self, worker: str, ids: Iterable[str], wake: Collection[str], now: float) -> None:
        """Give up the claim on these executions.

        Args:
            wake: Those of them that have outcomes to be delivered.
        """
        for some in _slices(list(ids)):
            mine = (executions.c.id.in_(some)) & (executions.c.worker == worker)
            to_wake = executions.c.id.in_([item for item in some if item in wake])
            with self._connections.write() as connection:
                connection.execute(
                    update(executions)
                    .where(mine, executions.c.status == ExecutionStatus.RUNNING.value)
                    .values(status=_status_at_rest())
                )
                connection.execute(update(executions).where(mine, to_wake).values(wake_at=now))
                connection.execute(update(executions).where(mine).values(worker=None))
                tell(connection)

    def record_crash(self, worker: str, execution_id: str, wake_at: float | None, note: str) -> int:
        """Count a turn that took its sandbox process down; gives up the claim.

        Args:
            wake_at: When to try again; None pauses the execution.

        Returns:
            How many turns in a row have crashed, this one included.
        """
        status = _status_at_rest() if wake_at is not None else ExecutionStatus.PAUSED.value
        statement = (
            update(executions)
            .where(executions.c.id == execution_id, executions.c.worker == worker)
            .values(crashes=executions.c.crashes + 1, worker=None, wake_at=wake_at, note=note, status=status)
            .returning(executions.c.crashes)
        )
        with self._connections.write() as connection:
            return int(connection.scalar(statement) or 0)

    def defer(self, worker: str, execution_id: str, wake_at: float, reason: str) -> None:
        """Give up the claim on an execution that cannot be decrypted until `wake_at`; its note tells the reason."""
        mine = (executions.c.id == execution_id) & (executions.c.worker == worker)
        values = {"worker": None, "wake_at": wake_at, "note": UNREADABLE_NOTE + reason, "status": _status_at_rest()}
        with self._connections.write() as connection:
            connection.execute(update(executions).where(mine, executions.c.status.in_(_ALIVE)).values(values))

    # Calls

    def claim_calls(self, worker: str, executor: str, now: float, limit: int) -> list[DueCall]:
        """Take pending calls of an executor whose time has come: they become `submitting`.

        Those that have waited longest come first, each unit of priority counting as a minute; calls under a limit are
        claimed by `limits.claim`.
        """
        return self._claiming.claim_calls(worker, executor, now, limit)

    def pending_executors(self, now: float) -> set[str]:
        """The executors that have pending calls whose time has come."""
        query = select(calls.c.executor).where(calls.c.status == CallStatus.PENDING.value, calls.c.due_at <= now)
        with self._connections.read() as connection:
            return {str(name) for name in connection.scalars(query.distinct())}

    def store_tokens(self, tokens: Mapping[tuple[str, int, int], str]) -> None:
        """Record what executors answered, by (execution id, call id, attempt)."""
        statement = _AT_EXECUTOR_STILL.values(status=CallStatus.SUBMITTED.value, token=bindparam("new_token"))
        rows = [{**_attempt(key), "new_token": token} for key, token in tokens.items()]
        if rows:
            with self._connections.write() as connection:
                connection.execute(statement, rows)

    def put_back(self, keys: Iterable[tuple[str, int, int]], due_at: float) -> None:
        """Make attempts that were not accepted `pending` again, the same attempt, due at `due_at`."""
        statement = _AT_EXECUTOR_STILL.values(status=CallStatus.PENDING.value, worker=None, due_at=due_at)
        rows = [_attempt(key) for key in keys]
        if rows:
            with self._connections.write() as connection:
                connection.execute(statement, rows)

    def reattempt(self, attempts_: Sequence[NextAttempt]) -> frozenset[str]:
        """Record failed attempts that are followed by another; the calls become `pending`.

        Returns:
            Job ids of those that came too late and were ignored.
        """
        with self._connections.write() as connection:
            return record_attempts(connection, attempts_)

    # Workers

    def register(self, identity: WorkerIdentity, lease_until: float) -> None:
        """Record a worker, or renew its lease."""
        renewed = update(workers).where(workers.c.id == identity.id).values(lease_until=lease_until)
        with self._connections.write() as connection:
            if connection.execute(renewed).rowcount == 0:
                connection.execute(
                    insert(workers).values(
                        id=identity.id,
                        host=identity.host,
                        pid=identity.pid,
                        process_started=identity.process_started,
                        lease_until=lease_until,
                    )
                )

    def list_workers(self) -> list[tuple[WorkerIdentity, float]]:
        """Every worker that has not been taken over, with the end of its lease."""
        with self._connections.read() as connection:
            rows = connection.execute(select(workers).where(workers.c.lease_until >= 0)).all()
        return [(WorkerIdentity(row.id, row.host, row.pid, row.process_started), row.lease_until) for row in rows]

    def jobs_of(self, worker: str) -> list[DueCall]:
        """The calls that this worker has handed to executors, or is about to, as far as the database knows."""
        query = select(calls).where(calls.c.worker == worker, calls.c.status.in_(_AT_EXECUTOR))
        with self._connections.read() as connection:
            return [self._due_call(row) for row in connection.execute(query).mappings()]

    def take_over(self, dead: str, lease_until: float, heir: str, now: float) -> list[DueCall] | None:
        """Free what a dead worker held: its executions for anybody, its jobs for `heir` to watch.

        It is remembered for a day as taken over: should it be alive after all, it claims nothing until it has renewed
        its lease.

        Args:
            lease_until: The end of its lease as it was read; if it has been renewed since, nothing happens.

        Returns:
            The dead worker's open jobs, or None if it turned out to be alive or another worker was faster.
        """
        forgotten = delete(workers).where(workers.c.lease_until < 0, workers.c.lease_until > _REMEMBERED_SECONDS - now)
        jobs = (
            update(calls)
            .where(calls.c.worker == dead, calls.c.status.in_(_AT_EXECUTOR))
            .values(worker=heir)
            .returning(calls)
        )
        with self._connections.write() as connection:
            gone = {"dead": dead, "lease_until": lease_until, "worker": heir, "taken_at": -now}
            if not _TAKE_OVER.mappings(connection, gone):
                return None
            connection.execute(forgotten)
            connection.execute(
                update(executions)
                .where(executions.c.worker == dead, executions.c.status.in_(_ALIVE))
                .values(worker=None, wake_at=now, status=_status_at_rest())
            )
            tell(connection)
            return [self._due_call(row) for row in connection.execute(jobs).mappings()]

    # Reading, for people and for a rebuild

    def execution(self, execution_id: str) -> ExecutionRow:
        """One execution.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        with self._connections.read_at_once() as connection:
            return self._execution(connection, execution_id)

    def is_idle(self) -> bool:
        """Whether no execution is scheduled, running or waiting."""
        query = select(executions.c.id).where(executions.c.status.in_(_ALIVE)).limit(1)
        with self._connections.read() as connection:
            return connection.execute(query).first() is None

    def workflow(self, digest: str) -> WorkflowRecord:
        """A stored workflow; kept in memory, because it never changes."""
        with self._connections.read() as connection:
            return self._workflow(connection, digest)

    def calls(self, execution_id: str, kind: str | None = None) -> list[CallRow]:
        """The log of an execution, in the order in which its calls were made."""
        query = select(calls).where(calls.c.execution_id == execution_id).order_by(calls.c.call_id)
        if kind is not None:
            query = query.where(calls.c.kind == kind)
        with self._connections.read() as connection:
            return [call_row(row, self._connections.vault) for row in connection.execute(query).mappings()]

    def call(self, execution_id: str, call_id: int) -> CallRow | None:
        """One call, or None."""
        query = select(calls).where(calls.c.execution_id == execution_id, calls.c.call_id == call_id)
        with self._connections.read() as connection:
            row = connection.execute(query).mappings().first()
        return call_row(row, self._connections.vault) if row else None

    def has_undelivered(self, execution_id: str) -> bool:
        """Whether the execution has a call with an outcome that it has not got.

        Raises:
            ExecutionNotFound: No execution has this id.
        """
        query = (
            select(calls.c.call_id)
            .where(calls.c.execution_id == execution_id, calls.c.batch.is_(None))
            .where(calls.c.status.not_in(OPEN_STATUSES))
            .limit(1)
        )
        with self._connections.read() as connection:
            row = self._execution(connection, execution_id)
            return not row.status.is_terminal and connection.execute(query).first() is not None

    def count_calls(self, execution_id: str) -> dict[str, int]:
        """How many calls of host functions the execution has made, by their status."""
        query = (
            select(calls.c.status, func.count())
            .where(calls.c.execution_id == execution_id, calls.c.kind == "function")
            .group_by(calls.c.status)
        )
        with self._connections.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def failed_attempts(self, execution_id: str) -> list[tuple[int, int, float, str]]:
        """Earlier and late attempts: (call id, attempt, ended at, failure text)."""
        query = (
            select(attempts.c.call_id, attempts.c.attempt, attempts.c.ended_at, attempts.c.failure)
            .where(attempts.c.execution_id == execution_id)
            .order_by(attempts.c.call_id, attempts.c.attempt)
        )
        show = self._connections.vault.show
        with self._connections.read() as connection:
            return [
                (
                    row.call_id,
                    row.attempt,
                    row.ended_at,
                    show(row.failure, failure_of(row.attempt), execution_id, row.call_id),
                )
                for row in connection.execute(query)
            ]

    def snapshot(self, execution_id: str) -> Snapshot | None:
        """The execution's snapshot, or None."""
        return self._claiming.snapshot(execution_id)

    # Parts

    def _execution(self, connection: Connection, execution_id: str, *, is_locked: bool = False) -> ExecutionRow:
        query = _LOCKED_EXECUTION if is_locked else _EXECUTION
        found = query.mappings(connection, {"id": execution_id}) if is_storable(execution_id) else []
        if not found:
            raise ExecutionNotFound(
                f"looking for execution {execution_id!r:.200}: {self.url} has none with this id; "
                "`durable-monty list` shows those it has"
            )
        return execution_row(found[0], self._connections.vault)

    def _due_call(self, row: RowMapping) -> DueCall:
        return DueCall(row["execution_id"], call_row(row, self._connections.vault))

    def _workflow(self, connection: Connection, digest: str) -> WorkflowRecord:
        record = self._workflows.get(digest)
        if record is None:
            row = connection.execute(select(workflows).where(workflows.c.digest == digest)).mappings().one()
            record = self._workflows[digest] = workflow_record(row)
        return record


def _status_at_rest() -> Any:
    """What an execution that nobody holds is: `waiting`, or `scheduled` if it has not begun."""
    return case((executions.c.version == 0, ExecutionStatus.SCHEDULED.value), else_=ExecutionStatus.WAITING.value)


def _attempt(key: tuple[str, int, int]) -> dict[str, Any]:
    """The parameters of `_AT_EXECUTOR_STILL`."""
    return dict(zip(("of_execution", "of_call", "of_attempt"), key, strict=True))


def _slices(items: list[str]) -> Iterable[list[str]]:
    return (items[start : start + _IN_LIMIT] for start in range(0, len(items), _IN_LIMIT))

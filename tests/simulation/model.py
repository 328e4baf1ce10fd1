"""The reference model: what has been true once, and what must be true after every commit.

It reads the database behind the back of the simulated processes and compares it with what it was before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from durable_monty import codec
from durable_monty.consequences import answer_of
from durable_monty.interpreter import Progress, Session
from durable_monty.models import Call, CallStatus, Job, job_id_of, parse_job_id
from durable_monty.records import CallKind, CallRow
from durable_monty.replay import replay
from durable_monty.sealing import unseal
from durable_monty.store.store import Store
from simulation.nodes import Node, Violation
from simulation.world import World

ENDED = ("completed", "failed", "cancelled")
OPEN = ("pending", "submitting", "submitted")
CLIENT = "client"
_EXECUTIONS = "SELECT id, status, version, worker, output, error, next_batch, parent, parent_call, cancel_deadline_at FROM executions"
_CALLS = "SELECT execution_id, call_id, kind, function, arguments, status, attempt, outcome, batch, position, worker FROM calls"
_MOST_STEPS_BEYOND = 12


@dataclass(frozen=True)
class Execution:
    id: str
    status: str
    version: int
    worker: str | None
    output: str | None
    error: str | None
    next_batch: int
    parent: str | None
    parent_call: int | None
    cancel_deadline_at: float | None


@dataclass(frozen=True)
class Called:
    execution_id: str
    call_id: int
    kind: str
    function: str
    arguments: str
    status: str
    attempt: int
    outcome: str | None
    batch: int | None
    position: int | None
    worker: str | None


class Model:
    """Looks after every commit.

    Args:
        raw: The database's own connection.
    """

    def __init__(self, world: World, raw: Any, store: Store) -> None:
        self._world, self._raw, self._store = world, raw, store
        self.executions: dict[str, Execution] = {}
        self.calls: dict[tuple[str, int], Called] = {}
        self._ended_at: dict[str, int] = {}
        self.by_hand: set[str] = set()
        self.turns = 0

    def look(self, who: str) -> None:
        """Compare what the database has now with what it had before `who` committed."""
        executions = {row[0]: Execution(*row) for row in self._raw.execute(_EXECUTIONS)}
        calls = {(row[0], row[1]): Called(*row) for row in self._raw.execute(_CALLS)}
        for id_, old in self.executions.items():
            self._compare_execution(who, old, executions.get(id_))
        for key, before in self.calls.items():
            self._compare_call(before, calls.get(key))
        self.executions, self.calls = executions, calls
        for row in executions.values():
            if row.status in ENDED:
                self._ended_at.setdefault(row.id, self._world.commits)
        self._check_now()

    def check_submit(self, node: Node, call: Call) -> None:
        """A call is durable before it is submitted, and is not submitted after the end of its execution."""
        now = self.calls.get((call.execution_id, call.call_id))
        _require(now is not None and now.attempt >= call.attempt, f"{call.job_id} is submitted and is not in the log")
        assert now is not None
        _require(now.arguments == call.arguments, f"{call.job_id} is submitted with other arguments than the log has")
        ended_at = self._ended_at.get(call.execution_id)
        _require(
            ended_at is None or ended_at > node.committed_at,
            f"{call.job_id} is submitted after its execution has ended",
        )

    def check_complete(self, job: Job) -> None:
        """An outcome is durable before its executor may forget it."""
        execution_id, call_id, attempt = parse_job_id(job.job_id)
        row = self.calls.get((execution_id, call_id))
        _require(
            row is None or row.status not in OPEN or row.attempt > attempt,
            f"{job.job_id} is completed and has no outcome in the log",
        )

    def check_end(self) -> None:
        """What holds when everything has come to an end."""
        for row in self.executions.values():
            _require(row.status in ENDED, f"{row.id} is {row.status} and does not go on")
            self._check_result(row)

    def check_snapshots(self) -> None:
        """Snapshots are what a replay of the log gives."""
        for row in self.executions.values():
            if row.status not in ENDED and row.version:
                self._check_snapshot(row)

    def _compare_execution(self, who: str, old: Execution, new: Execution | None) -> None:
        _require(new is not None, f"{old.id} is gone")
        assert new is not None
        if old.status in ENDED:
            same = (old.status, old.output, old.error, old.version) == (new.status, new.output, new.error, new.version)
            _require(same, f"{old.id} has ended and was changed by {who}: {old} -> {new}")
        if new.version != old.version:
            self.turns += 1
            _require(new.version == old.version + 1, f"{old.id}: version {old.version} -> {new.version}")
            _require(old.worker == who, f"{old.id} is held by {old.worker} and was moved on by {who}")

    def _compare_call(self, old: Called, new: Called | None) -> None:
        name = f"call {old.call_id} of {old.execution_id}"
        _require(new is not None, f"{name} is gone")
        assert new is not None
        _require(
            (old.kind, old.function, old.arguments) == (new.kind, new.function, new.arguments), f"{name} is another"
        )
        _require(old.attempt <= new.attempt <= old.attempt + 1, f"{name}: attempt {old.attempt} -> {new.attempt}")
        if old.status not in OPEN:
            same = (old.status, old.outcome, old.attempt) == (new.status, new.outcome, new.attempt)
            _require(same, f"{name} had an outcome and got another: {old} -> {new}")
        if old.batch is not None:
            same = (old.batch, old.position) == (new.batch, new.position)
            _require(same, f"{name} was delivered and is delivered again: {old} -> {new}")
        elif old.status in OPEN and new.status == "completed" and old.kind == "function":
            key = job_id_of(old.execution_id, old.call_id, old.attempt)
            known = self._world.values[key] | self.by_hand
            _require(new.outcome in known, f"{name}: {new.outcome} is no outcome of attempt {old.attempt}")

    def _check_now(self) -> None:
        places = Counter((row.execution_id, row.batch, row.position) for row in self.calls.values() if _is_told(row))
        _require(not places or max(places.values()) == 1, "two outcomes were delivered in the same place")
        signals = Counter(
            row.outcome for row in self.calls.values() if row.kind == "signal" and row.status == "completed"
        )
        _require(not signals or max(signals.values()) == 1, f"a signal was given twice: {signals}")
        for row in self.calls.values():
            execution = self.executions[row.execution_id]
            name = f"call {row.call_id} of {row.execution_id}"
            if execution.status in ENDED:
                _require(row.status not in OPEN, f"{name} is {row.status} after its execution has ended")
            if _is_told(row):
                _require(row.status not in OPEN, f"{name} was delivered and is {row.status}")
                _require(
                    execution.status in ENDED or (row.batch or 0) < execution.next_batch, f"{name}: batch {row.batch}"
                )
        for row in self.executions.values():
            if row.parent is not None and row.parent_call is not None and row.status not in ENDED:
                waiting = self.calls[row.parent, row.parent_call]
                _require(
                    waiting.status in (*OPEN, "cancelled"),
                    f"{row.parent} has the end of {row.id}, which is {row.status}",
                )
        query = "SELECT e.id, e.version, s.version FROM executions e LEFT JOIN snapshots s ON s.execution_id = e.id WHERE e.version > 0 AND e.ended_at IS NULL"
        for id_, version, of_snapshot in self._raw.execute(query):
            _require(version == of_snapshot, f"{id_} has version {version}, its snapshot {of_snapshot}")

    def _check_snapshot(self, row: Execution) -> None:
        record = self._store.execution(row.id)
        workflow = self._store.workflow(record.workflow)
        calls = self._store.calls(row.id)
        snapshot = self._store.snapshot(row.id)
        assert snapshot is not None
        loaded, replayed = self._session(workflow, row.id), self._session(workflow, row.id)
        try:
            loaded.load(unseal(row.id, row.version, snapshot, None))
            try:
                replay(replayed, workflow, codec.loads(record.inputs), calls)
            except Exception as error:
                raise Violation(f"{row.id} cannot be rebuilt from its log: {error}") from error
            self._go_beyond(row.id, loaded, replayed, {call.call_id: call for call in calls})
        finally:
            loaded.close()
            replayed.close()

    def _go_beyond(self, id_: str, one: Session, other: Session, calls: dict[int, CallRow]) -> None:
        """The same outcomes lead both to the same calls."""
        for _ in range(_MOST_STEPS_BEYOND):
            _require(
                one.pending_call_ids == other.pending_call_ids,
                f"{id_}: the snapshot waits for other calls than the log",
            )
            if not one.pending_call_ids:
                return
            call_id = min(one.pending_call_ids)
            row = calls.get(call_id)
            scope = row.scope if row is not None else ""
            made = []
            for session in (one, other):
                progress = Progress()
                answer = answer_of(
                    CallRow(call_id, CallKind.FUNCTION, "", "", CallStatus.COMPLETED, outcome="null", scope=scope)
                )
                session.deliver([answer], progress)
                made.append((_shown(progress.announced), progress.is_finished, progress.output))
            _require(made[0] == made[1], f"{id_}: the snapshot goes on with {made[0]}, the log with {made[1]}")
            if made[0][1]:
                return

    def _check_result(self, row: Execution) -> None:
        """The workflow, run once more with what was delivered, ends as it is recorded."""
        if row.status == "cancelled" or row.cancel_deadline_at is not None:
            return
        record = self._store.execution(row.id)
        workflow = self._store.workflow(record.workflow)
        calls = self._store.calls(row.id)
        clocks = {call.call_id: call.outcome or "null" for call in calls if call.kind is CallKind.CLOCK}
        session = self._session(workflow, row.id)
        try:
            progress = session.start(workflow.source, workflow.globals(codec.loads(record.inputs)), clocks)
            told = sorted((call for call in calls if (call.batch or 0) >= 0 and call.batch is not None), key=_place)
            batches: dict[int, list[CallRow]] = {}
            for call in told:
                batches.setdefault(call.batch or 0, []).append(call)
            for batch in batches.values():
                missing = {call.call_id for call in batch} - session.pending_call_ids
                _require(not missing, f"{row.id}: calls {missing} were delivered, and the log does not lead to them")
                progress = Progress()
                session.deliver([answer_of(call) for call in batch], progress)
            _require(progress.is_finished, f"{row.id} is {row.status}, its log does not lead to an end")
            if row.status == "completed":
                _require(progress.output == row.output, f"{row.id}: output {row.output}, by the log {progress.output}")
            else:
                _require(progress.raised is not None, f"{row.id} failed, by its log it has {progress.output}")
        finally:
            session.close()

    def _session(self, workflow: Any, id_: str) -> Session:
        return self._world.interpreter.open(workflow.functions, lambda offset: 0, id_)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Violation(message)


def _is_told(row: Called) -> bool:
    return row.batch is not None and row.batch >= 0


def _place(call: CallRow) -> tuple[int, int]:
    return call.batch or 0, call.position or 0


def _shown(announced: Iterable[Any]) -> list[tuple[int, str, str, str]]:
    # Where a clock is read the two read it at different times.
    return [(call.call_id, call.function, json.dumps(call.arguments), call.scope) for call in announced]

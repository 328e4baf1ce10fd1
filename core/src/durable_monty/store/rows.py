"""Between the tables' rows and the records of `durable_monty.records`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy import RowMapping

from durable_monty.codec import Unreadable
from durable_monty.models import CallStatus, ExecutionStatus
from durable_monty.policies import CallPolicy
from durable_monty.records import (
    CallKind,
    CallRow,
    Delivery,
    ExecutionRow,
    FunctionRef,
    Settlement,
    Snapshot,
    Turn,
    WorkflowRecord,
)
from durable_monty.store.vault import Vault

_CALL_FIELDS = tuple(field.name for field in dataclasses.fields(CallRow))
CALL_COLUMNS = ("execution_id", *_CALL_FIELDS)
_call_fields = attrgetter(*_CALL_FIELDS)
EXECUTION_COLUMNS = tuple(field.name for field in dataclasses.fields(ExecutionRow))


def workflow_values(record: WorkflowRecord, checked_at: float | None) -> dict[str, Any]:
    """The row of a workflow."""
    functions = {name: [ref.path, ref.blocking, ref.policy.to_dict()] for name, ref in record.functions.items()}
    return {
        "digest": record.digest,
        "name": record.name,
        "filename": record.filename,
        "source": record.source,
        "lines": json.dumps(record.lines, separators=(",", ":")),
        "user_source": record.user_source,
        "first_line": record.first_line,
        "entry": record.entry,
        "functions": json.dumps(functions, separators=(",", ":")),
        "parameters": json.dumps(dict(record.parameters)),
        "children": json.dumps(dict(record.children)),
        "checked_at": checked_at,
    }


def workflow_record(row: RowMapping) -> WorkflowRecord:
    """A workflow from its row."""
    functions = {
        name: FunctionRef(name, path, bool(blocking), CallPolicy.from_dict(policy))
        for name, (path, blocking, policy) in json.loads(row["functions"]).items()
    }
    return WorkflowRecord(
        row["digest"],
        row["name"],
        row["filename"],
        row["source"],
        tuple(json.loads(row["lines"])),
        row["user_source"],
        row["first_line"],
        functions,
        row["entry"],
        # A list where it was stored before workflows told their parameters.
        dict(json.loads(row["parameters"])),
        json.loads(row["children"]),
    )


def call_values(execution_id: str, call: CallRow) -> dict[str, Any]:
    """The row of a call."""
    values = dict(zip(CALL_COLUMNS, (execution_id, *_call_fields(call)), strict=True))
    values["kind"] = str(call.kind)
    values["status"] = str(call.status)
    values["blocking"] = int(call.blocking)
    values["resources"] = json.dumps(call.resources) if call.resources else None
    values["policy"] = json.dumps(call.policy) if call.policy else None
    return values


def call_row(row: RowMapping | Mapping[str, Any], vault: Vault) -> CallRow:
    """A call from its row."""
    values = {name: row[name] for name in _CALL_FIELDS}
    vault.show_call(row["execution_id"], values)
    values["kind"] = CallKind(values["kind"])
    values["status"] = CallStatus(values["status"])
    values["blocking"] = bool(values["blocking"])
    values["resources"] = json.loads(values["resources"]) if values["resources"] else None
    values["policy"] = json.loads(values["policy"]) if values["policy"] else None
    return CallRow(**values)


def execution_values(row: ExecutionRow, vault: Vault) -> dict[str, Any]:
    """The row of an execution."""
    values = {name: getattr(row, name) for name in EXECUTION_COLUMNS}
    values["status"] = str(row.status)
    values["is_cancel_delivered"] = int(row.is_cancel_delivered)
    return vault.hide_execution(values)


def execution_row(row: RowMapping | Mapping[str, Any], vault: Vault) -> ExecutionRow:
    """An execution from its row."""
    values = {name: row[name] for name in EXECUTION_COLUMNS}
    vault.show_execution(values)
    if isinstance(values["error"], Unreadable):
        # For people only, who are told why they cannot read it.
        values["error"] = values["error"].reason
    values["status"] = ExecutionStatus(values["status"])
    values["is_cancel_delivered"] = bool(values["is_cancel_delivered"])
    return ExecutionRow(**values)


def snapshot_record(row: RowMapping | Mapping[str, Any], vault: Vault) -> Snapshot:
    """A snapshot from its row."""
    stored = Snapshot(row["version"], row["monty_version"], row["format"], bytes(row["digest"]), bytes(row["snapshot"]))
    return vault.show_snapshot(row["execution_id"], stored)


def turn_values(turn: Turn, worker: str) -> dict[str, Any]:
    """The parameters of a turn's guarded update."""
    return {
        "id": turn.execution_id,
        "version": turn.version,
        "worker": worker,
        "keep": worker if turn.is_kept else None,
        "status": str(turn.status),
        "next_batch": turn.next_batch,
        "wake_at": turn.wake_at,
        "seen_wake_at": turn.seen_wake_at,
        "at": turn.at,
        "ended_at": turn.at if turn.status.is_terminal else None,
        "output": turn.output,
        "error": turn.error,
        "note": turn.note,
        "is_cancel_delivered": int(turn.is_cancel_delivered),
        "last_turn": turn.last_turn,
    }


def settlement_values(item: Settlement, delivery: Delivery | None) -> dict[str, Any]:
    """The parameters of a settlement, with its delivery if both become durable together."""
    return {
        "execution_id": item.execution_id,
        "call_id": item.call_id,
        "attempt": item.attempt,
        "status": str(item.status),
        "outcome": item.outcome,
        "ended_at": item.ended_at,
        "batch": delivery.batch if delivery else None,
        "position": delivery.position if delivery else None,
        "requires": item.requires,
    }


def snapshot_values(turn: Turn) -> dict[str, Any]:
    """The row of a turn's snapshot."""
    assert turn.snapshot is not None
    return {
        "execution_id": turn.execution_id,
        "version": turn.snapshot.version,
        "monty_version": turn.snapshot.monty_version,
        "format": turn.snapshot.format,
        "digest": turn.snapshot.digest,
        "snapshot": turn.snapshot.data,
    }


def needed_outcomes(turns: Sequence[Turn]) -> set[tuple[str, int]]:
    """The calls of which a turn delivers the outcome, or relies on it otherwise."""
    return {
        (turn.execution_id, call_id)
        for turn in turns
        for call_id in (*turn.relies_on, *(item.call_id for item in turn.deliveries))
    }


def unmoved(settlements: Sequence[Settlement], turns: Sequence[Turn], wake: Collection[str]) -> set[str]:
    """The executions that get an outcome without a turn, because the worker takes itself for their holder."""
    return {item.execution_id for item in settlements} - {turn.execution_id for turn in turns} - set(wake)

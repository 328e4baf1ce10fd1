"""Rebuilding an execution from its log: the way out when a snapshot cannot be used, never the way of a normal resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from durable_monty.consequences import answer_of
from durable_monty.interpreter import Announced, Progress, Session
from durable_monty.records import CallKind, CallRow, WorkflowRecord


class ReplayMismatch(Exception):
    """The workflow, run again with the recorded outcomes, did something else than the log says."""


def replay(session: Session, workflow: WorkflowRecord, inputs: Mapping[str, Any], log: Sequence[CallRow]) -> None:
    """Run the workflow from its first line with everything that the log has delivered, in the order of delivery.

    Args:
        session: A fresh session; it ends where the execution stands.
        log: All calls of the execution.

    Raises:
        ReplayMismatch: The workflow made other calls than the log has.
    """
    recorded = {call.call_id: call for call in log}
    clocks = {call.call_id: call.outcome or "null" for call in log if call.kind is CallKind.CLOCK}
    progress = session.start(workflow.source, workflow.globals(inputs), clocks)
    _compare(progress, recorded)
    delivered = sorted(
        (call for call in log if call.batch is not None and call.batch >= 0),
        key=lambda call: (call.batch, call.position),
    )
    for _, batch in groupby(delivered, key=lambda call: call.batch):
        if progress.is_finished:
            raise ReplayMismatch("rebuilding from the log: the workflow ended earlier than the log says")
        answers = [answer_of(call) for call in batch]
        missing = {answer.call_id for answer in answers} - session.pending_call_ids
        if missing:
            raise ReplayMismatch(f"rebuilding from the log: the workflow does not wait for calls {sorted(missing)}")
        progress = Progress()
        session.deliver(answers, progress)
        _compare(progress, recorded)
    if progress.is_finished:
        raise ReplayMismatch("rebuilding from the log: the workflow ended, the log says that it waits")
    session.set_recorded_clocks({})


def _compare(progress: Progress, recorded: Mapping[int, CallRow]) -> None:
    for made in progress.announced:
        call = recorded.get(made.call_id)
        if call is None or (call.function, call.arguments) != (made.function, made.arguments):
            raise ReplayMismatch(
                f"rebuilding from the log: call {made.call_id} is now {_shown(made)}, the log has {_shown(call)}"
            )


def _shown(call: Announced | CallRow | None) -> str:
    return "nothing" if call is None else f"{call.function} with {call.arguments[:200]}"

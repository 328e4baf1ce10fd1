"""`list`, `show`, `result` and `cancel`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from durable_monty import codec
from durable_monty.cli.output import (
    FAILED,
    config_option,
    fail,
    json_option,
    open_service,
    plain_json,
    print_json,
    print_table,
    read_tags,
    read_time,
    say,
    say_line,
    shown_time,
)

if TYPE_CHECKING:
    from durable_monty.records import CallRow, ExecutionRow, WorkflowRecord
    from durable_monty.waiting import Wait

_STATUSES = ("scheduled", "running", "waiting", "completed", "failed", "cancelled", "paused")
_SHOWN_CALLS = 50
_SHOWN_CHARACTERS = 60
_LISTED = ("execution_id", "status", "created_at", "ended_at", "deadline_at", "tags", "schedule", "cursor")


@click.command("list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only executions with this status.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only executions with this tag.")
@click.option("--workflow", metavar="NAME", help="Only executions of workflows with this name.")
@click.option("--since", metavar="TIME", help="Only executions started then or later, ISO 8601.")
@click.option("--until", metavar="TIME", help="Only executions started before then, ISO 8601.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="Most executions to list.")
@click.option("--before", metavar="CURSOR", help="The next page: the cursor of the last execution of this one.")
@json_option
@config_option
def list_(
    status: str | None,
    tags: Sequence[str],
    workflow: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    before: str | None,
    as_json: bool,
    config_path: str | None,
) -> None:
    """List executions, the newest first."""
    try:
        found = open_service(config_path).list_executions(
            status,
            limit,
            tags=read_tags(tags),
            workflow=workflow,
            since=read_time("--since", since),
            until=read_time("--until", until),
            before=before,
        )
    except ValueError as error:
        fail(str(error))
    if as_json:
        print_json([{**{key: item[key] for key in _LISTED}, "memo": plain_json(item["memo"])} for item in found])
        return
    rows = [
        (
            item["execution_id"],
            item["status"],
            shown_time(item["created_at"]),
            shown_time(item["ended_at"]),
            _shown_tags(item["tags"]),
        )
        for item in found
    ]
    print_table(("execution", "status", "created", "ended", "tags"), rows)
    if len(found) == limit:
        say(f"there may be more: --before {found[-1]['cursor']}", err=True)


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--all", "show_all", is_flag=True, help=f"Show every call, not only the last {_SHOWN_CALLS}.")
@json_option
@config_option
def show(execution_id: str, show_all: bool, as_json: bool, config_path: str | None) -> None:
    """Show an execution: its calls, their attempts and times, and its source with the line it waits at."""
    from durable_monty.waiting import waits_of

    service = open_service(config_path)
    store = service.runtime.store
    row = store.execution(execution_id)
    workflow = store.workflow(row.workflow)
    # A wait of one task for another is no affair of anybody outside.
    calls = [call for call in store.calls(execution_id) if call.kind.value != "channel"]
    waits = waits_of(store, execution_id)
    failures = store.failed_attempts(execution_id)
    waiting = _waiting_lines(row, calls)
    described = service.get_execution(execution_id)
    if as_json:
        print_json(
            {**_as_json(described, workflow, calls, failures, waiting), "waiting_for": [asdict(w) for w in waits]}
        )
        return
    _print_head(row, workflow, described["tags"])
    _print_waits(waits)
    _print_calls(calls, show_all=show_all)
    _print_open(calls)
    _print_failures(failures)
    _print_source(workflow, set(waiting))
    if row.error:
        say(f"\n{row.error}")


@click.command()
@click.argument("execution_id", metavar="ID")
@config_option
def result(execution_id: str, config_path: str | None) -> None:
    """Print the value that an execution returned, as JSON."""
    from durable_monty.cli.starting import print_end

    print_end(open_service(config_path), execution_id)


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--reason", help="A sentence for `show`.")
@click.option("--deadline-seconds", default=60.0, show_default=True, help="After this it is ended by force.")
@config_option
def cancel(execution_id: str, reason: str | None, deadline_seconds: float, config_path: str | None) -> None:
    """Ask for the end of an execution; its `finally` blocks run first."""
    from durable_monty.errors import ExecutionEnded

    try:
        open_service(config_path).cancel(execution_id, reason, deadline_seconds)
    except ExecutionEnded as error:
        say(f"error: {error}", err=True)
        sys.exit(FAILED)


def _waiting_lines(row: ExecutionRow, calls: Sequence[CallRow]) -> list[int]:
    """The lines of the calls that are open, in the order in which they were made."""
    if row.status.is_terminal:
        return []
    return [call.line for call in calls if call.line and not call.status.is_terminal]


def _as_json(
    execution: dict[str, Any],
    workflow: WorkflowRecord,
    calls: Sequence[CallRow],
    failures: Sequence[tuple[int, int, float, str]],
    waiting: Sequence[int],
) -> dict[str, Any]:
    from durable_monty.store import read_failure

    earlier: dict[int, list[dict[str, Any]]] = {}
    for call_id, attempt, ended_at, text in failures:
        failure = read_failure(text)
        earlier.setdefault(call_id, []).append(
            {
                "attempt": attempt,
                "ended_at": ended_at,
                "kind": failure.kind,
                "type": failure.type,
                "message": failure.message,
            }
        )
    return {
        **execution,
        "inputs": plain_json(execution["inputs"]),
        "output": plain_json(execution["output"]),
        "memo": plain_json(execution["memo"]),
        "workflow": workflow.name,
        "calls": [
            {
                "call_id": call.call_id,
                "kind": call.kind.value,
                "function": call.function,
                "arguments": _parsed(call.arguments),
                "status": call.status.value,
                "attempts": call.attempt,
                "executor": call.executor,
                "queue": call.queue,
                "priority": call.priority,
                "timeout_seconds": call.timeout_seconds,
                "policy": dict(call.policy or {}),
                "limit_key": call.limit_key,
                "expires_at": call.expires_at,
                "progress": None if call.progress is None else _parsed(call.progress),
                "line": call.line or None,
                "created_at": call.created_at,
                "ended_at": call.ended_at,
                "earlier_failures": earlier.get(call.call_id, []),
            }
            for call in calls
        ],
        "source": workflow.user_source,
        "paused_line": waiting[0] if waiting else None,
    }


def _print_head(row: ExecutionRow, workflow: WorkflowRecord, tags: Mapping[str, str]) -> None:
    say_line(f"execution  {row.id}")
    say_line(f"workflow   {workflow.name} ({workflow.filename})")
    say_line(f"status     {row.status.value}")
    say_line(f"created    {shown_time(row.created_at)}")
    if row.ended_at is not None:
        say_line(f"ended      {shown_time(row.ended_at)}")
    if row.deadline_at is not None:
        say_line(f"deadline   {shown_time(row.deadline_at)}")
    if row.schedule is not None:
        say_line(f"schedule   {row.schedule}")
    if tags:
        say_line(f"tags       {_shown_tags(tags)}")
    if row.memo is not None:
        say_line(f"memo       {_short(row.memo)}")
    if row.note:
        say_line(f"note       {row.note}")
    say_line(f"inputs     {_short(row.inputs)}")
    if row.output is not None:
        say_line(f"output     {_short(row.output)}")


def _print_waits(waits: Sequence[Wait]) -> None:
    """Timers, signals and children one by one; the functions are among the calls."""
    others = [wait for wait in waits if wait.kind != "function"]
    for wait in others[:_SHOWN_CALLS]:
        until = "" if wait.due_at is None else f", until {shown_time(wait.due_at)}"
        say_line(f"waits for  {wait}{until}")
    if len(others) > _SHOWN_CALLS:
        say_line(f"waits for  {len(others) - _SHOWN_CALLS} more")
    if len(waits) > len(others):
        say_line(f"waits for  {len(waits) - len(others)} calls of functions")


def _print_calls(calls: Sequence[CallRow], *, show_all: bool) -> None:
    shown = calls if show_all else calls[-_SHOWN_CALLS:]
    if len(shown) < len(calls):
        say(f"\nthe last {len(shown)} of {len(calls)} calls; --all shows every one")
    elif calls:
        say()
    if not shown:
        return
    rows = [
        (
            call.call_id,
            call.line or "-",
            _called(call),
            _short(call.arguments),
            call.status.value,
            call.attempt,
            call.executor or "-",
            shown_time(call.created_at),
            "-" if call.ended_at is None else f"{call.ended_at - call.created_at:.3f} s",
        )
        for call in shown
    ]
    print_table(("call", "line", "function", "arguments", "status", "attempt", "executor", "made", "took"), rows)


def _called(call: CallRow) -> str:
    is_plain = call.kind.value in ("function", "timer", "clock")
    return call.function if is_plain else f"{call.kind.value} {call.function}"


def _print_open(calls: Sequence[CallRow]) -> None:
    """What there is to say about calls that are open: how far they are, what they wait for, what was asked for them."""
    lines = []
    for call in calls:
        if call.status.is_terminal:
            continue
        if call.progress is not None:
            lines.append(f"call {call.call_id} reported {_short(call.progress)}")
        if call.status.value == "pending" and call.limit_key is not None:
            lines.append(f"call {call.call_id} waits for its limit, {_short(call.limit_key)}")
        if call.expires_at is not None:
            lines.append(f"call {call.call_id} is looked at again at {shown_time(call.expires_at)}")
        if call.policy:
            wanted = ", ".join(f"{name}={value}" for name, value in call.policy.items() if name != "retry")
            lines += [f"call {call.call_id} has {wanted}"] if wanted else []
    if lines:
        say()
        for line in lines[-2 * _SHOWN_CALLS :]:
            say_line(line)


def _print_failures(failures: Sequence[tuple[int, int, float, str]]) -> None:
    from durable_monty.store import read_failure

    if not failures:
        return
    say("\nattempts that failed and were followed by another, or came too late:")
    rows = []
    for call_id, attempt, ended_at, text in failures[-_SHOWN_CALLS:]:
        failure = read_failure(text)
        rows.append(
            (call_id, attempt, shown_time(ended_at), failure.kind, _short(f"{failure.type}: {failure.message}"))
        )
    print_table(("call", "attempt", "ended", "kind", "failure"), rows)


def _print_source(workflow: WorkflowRecord, waiting: set[int]) -> None:
    say()
    for number, line in enumerate(workflow.user_source.split("\n"), workflow.first_line):
        mark = ">" if number in waiting else " "
        say(f"{mark} {number:4}  {line}".rstrip())


def _parsed(text: str) -> Any:
    """The JSON that the codec has written, tags and all."""
    codec.check_readable(text)
    return json.loads(text)


def _short(text: str) -> str:
    if isinstance(text, codec.Unreadable):
        return f"({text.reason})"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _shown_tags(tags: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in tags.items())

"""`signal`, `pause`, `resume`, `retry`, `published` and `stream`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from durable_monty.cli.output import (
    FAILED,
    config_option,
    fail,
    json_option,
    json_text,
    open_service,
    plain_json,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from durable_monty.service import OrchestratorService

_FOLLOW_SECONDS = 0.2
_PAGE = 1000


@click.command()
@click.argument("execution_id", metavar="ID")
@click.argument("name")
@click.argument("payload", metavar="[JSON]", default="null")
@config_option
def signal(execution_id: str, name: str, payload: str, config_path: str | None) -> None:
    """Send a signal to an execution; it is kept until the execution waits for it."""
    value = _read_json(payload)
    _steer(config_path, lambda service: service.signal(execution_id, name, value))


@click.command()
@click.argument("execution_id", metavar="ID")
@click.option("--reason", help="A sentence for `show`.")
@config_option
def pause(execution_id: str, reason: str | None, config_path: str | None) -> None:
    """Keep an execution from going on; its open calls go on, their outcomes wait."""
    _steer(config_path, lambda service: service.pause(execution_id, reason))


@click.command()
@click.argument("execution_id", metavar="ID")
@config_option
def resume(execution_id: str, config_path: str | None) -> None:
    """Let a paused execution go on."""
    _steer(config_path, lambda service: service.resume(execution_id))


@click.command()
@click.argument("execution_id", metavar="ID")
@config_option
def retry(execution_id: str, config_path: str | None) -> None:
    """Let a failed execution go on from its last snapshot: the call that failed is made again."""
    _steer(config_path, lambda service: service.retry(execution_id))


@click.command()
@click.argument("execution_id", metavar="ID")
@click.argument("key", required=False)
@json_option
@config_option
def published(execution_id: str, key: str | None, as_json: bool, config_path: str | None) -> None:
    """Print what an execution has published: each key and its value as JSON, or the value of one key."""
    values = open_service(config_path).published(execution_id)
    if key is not None:
        if key not in values:
            known = ", ".join(map(repr, sorted(values))) or "nothing"
            fail(f"reading {key!r} of execution {execution_id!r}: it has published {known} so far", FAILED)
        print_json(plain_json(values[key]))
    elif as_json:
        print_json({name: plain_json(value) for name, value in values.items()})
    else:
        rows = [(name, json_text(plain_json(value))) for name, value in values.items()]
        print_table(("key", "value"), rows)


@click.command()
@click.argument("execution_id", metavar="ID")
@click.argument("name", metavar="STREAM")
@click.option("--offset", default=0, show_default=True, type=click.IntRange(0), help="The first item to print.")
@click.option("--follow", is_flag=True, help="Print what comes until the execution has ended.")
@config_option
def stream(execution_id: str, name: str, offset: int, follow: bool, config_path: str | None) -> None:
    """Print the items of a stream, one JSON document a line."""
    service = open_service(config_path)
    while True:
        # Looked at first: what was emitted before the end is read after it.
        is_over = not follow or service.runtime.store.execution(execution_id).status.is_terminal
        while items := service.read_stream(execution_id, name, offset, _PAGE):
            for _, value in items:
                click.echo(json_text(plain_json(value)))
            offset += len(items)
        if is_over:
            return
        time.sleep(_FOLLOW_SECONDS)


def _steer(config_path: str | None, act: Callable[[OrchestratorService], None]) -> None:
    """Do it; an execution whose state does not allow it is exit code 1."""
    from durable_monty.errors import ExecutionConflict, ExecutionEnded

    try:
        act(open_service(config_path))
    except (ExecutionEnded, ExecutionConflict) as error:
        fail(str(error), FAILED)
    except ValueError as error:
        fail(str(error))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        fail(f"reading the payload: {text!r} is not JSON ({error.msg}); write text in double quotes: '\"{text}\"'")

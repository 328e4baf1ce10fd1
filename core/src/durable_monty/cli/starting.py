"""`run` and `start`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from durable_monty.cli.output import FAILED, config_option, fail, open_service, plain_json, print_json, say

if TYPE_CHECKING:
    from durable_monty.service import OrchestratorService

C = TypeVar("C", bound=Callable[..., Any])


def _target_options(command: C) -> C:
    for decorate in (
        config_option,
        click.option("--no-check", is_flag=True, help="Do not type-check the workflow first."),
        click.option("--id", "execution_id", metavar="ID", help="The execution's id; an existing one is resumed."),
        click.option(
            "--function", "functions", multiple=True, metavar="MODULE:NAME", help="A host function of plain source."
        ),
        click.option("--input", "inputs", multiple=True, metavar="KEY=JSON", help="An input of the workflow."),
        click.argument("target", metavar="FILE.py[:WORKFLOW]"),
    ):
        command = decorate(command)
    return command


@click.command()
@_target_options
@click.pass_context
def run(
    context: click.Context,
    target: str,
    inputs: Sequence[str],
    functions: Sequence[str],
    execution_id: str | None,
    no_check: bool,
    config_path: str | None,
) -> None:
    """Start a workflow, or go on with it, and work until it ends.

    FILE.py holds a `@workflow` function, or is plain source with top-level `await` and a --function for each host
    function. The result is printed as JSON. Killed at any moment, the same command with the same --id goes on.
    """
    service = open_service(config_path, verbose=context.obj["verbose"])
    started = _start(service, target, inputs, functions, execution_id, check=not no_check)
    from durable_monty.cli.progress import work_until_ended

    work_until_ended(service, started)
    print_end(service, started, resume=execution_id is not None)


@click.command()
@_target_options
@click.pass_context
def start(
    context: click.Context,
    target: str,
    inputs: Sequence[str],
    functions: Sequence[str],
    execution_id: str | None,
    no_check: bool,
    config_path: str | None,
) -> None:
    """Store a new execution for a worker to run, and print its id."""
    service = open_service(config_path, verbose=context.obj["verbose"])
    say(_start(service, target, inputs, functions, execution_id, check=not no_check))


def _start(
    service: OrchestratorService,
    target: str,
    inputs: Sequence[str],
    functions: Sequence[str],
    execution_id: str | None,
    *,
    check: bool,
) -> str:
    from durable_monty.cli.target import read_inputs, read_target

    values = read_inputs(inputs)
    chosen = read_target(target, functions)
    try:
        return service.start_execution(
            chosen.workflow,
            chosen.functions,
            values,
            execution_id=execution_id,
            check=check,
            filename=chosen.filename,
        )
    except ValueError as error:
        fail(str(error))


def print_end(service: OrchestratorService, execution_id: str, *, resume: bool = True) -> None:
    """Print how an execution ended and exit accordingly: the value on stdout, or the reason on stderr."""
    found = service.get_execution(execution_id)
    status = found["status"]
    if status == "completed":
        print_json(plain_json(found["output"]))
        return
    if status == "failed":
        say(found["error"], err=True)
    elif status == "cancelled":
        say(f"execution {execution_id!r} was cancelled: {found['error'] or ''}", err=True)
    elif status == "paused":
        say(f"execution {execution_id!r} is paused: {found['note'] or ''}", err=True)
    else:
        hint = "the same command goes on" if resume else f"go on with the same command and --id {execution_id}"
        say(f"execution {execution_id!r} has not ended, it is {status}; {hint}", err=True)
    sys.exit(FAILED)

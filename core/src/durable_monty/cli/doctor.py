"""`doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from durable_monty.cli.output import (
    FAILED,
    config_option,
    fail,
    json_option,
    open_service,
    print_json,
    say_line,
    shown_time,
)

if TYPE_CHECKING:
    from durable_monty.doctor import Diagnosis, Stuck

_AFTER_SECONDS = 300.0
_WAITING_AFTER_SECONDS = 86400.0
_SHOWN_CHARACTERS = 500


@click.command()
@click.option(
    "--after", "after_seconds", default=_AFTER_SECONDS, show_default=True, type=click.FloatRange(0), metavar="SECONDS",
    help="How long what workers do by themselves may be late.",
)  # fmt: skip
@click.option(
    "--waiting-after", "waiting_seconds", default=_WAITING_AFTER_SECONDS, show_default=True, type=click.FloatRange(0),
    metavar="SECONDS", help="How long a wait for a signal, a place, or a call without a time limit may last.",
)  # fmt: skip
@click.option(
    "--examples", default=10, show_default=True, type=click.IntRange(0), help="Most executions to name for each reason."
)
@click.option("--no-check", is_flag=True, help="Do not ask executors whether they can work.")
@json_option
@config_option
def doctor(
    after_seconds: float, waiting_seconds: float, examples: int, no_check: bool, as_json: bool, config_path: str | None
) -> None:
    """Find executions that do not go on, and say why and what to do.

    Exits with 1 if there are any.
    """
    service = open_service(config_path)
    try:
        found = service.diagnose(
            after_seconds=after_seconds,
            waiting_seconds=waiting_seconds,
            examples=examples,
            check_executors=not no_check,
        )
    except ValueError as error:
        fail(str(error))
    finally:
        service.close()
    if as_json:
        print_json([asdict(item) for item in found])
    else:
        for item in found:
            _print(item)
        click.echo(_summary(found))
    if found:
        sys.exit(FAILED)


def _print(item: Diagnosis) -> None:
    count = "1 execution" if item.count == 1 else f"{item.count} executions"
    since = "" if item.since is None else f", since {shown_time(item.since)}"
    say_line(f"{item.kind}: {count}{since}")
    say_line(f"  why      {item.explanation}")
    say_line(f"  what now {item.remedy}")
    for stuck in item.executions:
        say_line(f"  {_line(stuck)}")
    if item.count > len(item.executions):
        click.echo(f"  and {item.count - len(item.executions)} more")
    click.echo("")


def _line(stuck: Stuck) -> str:
    where = "" if stuck.call_id is None else f" call {stuck.call_id}"
    where += "" if stuck.line is None else f" line {stuck.line}"
    since = "" if stuck.since is None else f" since {shown_time(stuck.since)}"
    return f"{stuck.execution_id}{where}{since}" + (f": {_short(stuck.detail)}" if stuck.detail else "")


def _short(detail: str) -> str:
    """What a function has raised may be long; `--json` has all of it."""
    more = len(detail) - _SHOWN_CHARACTERS
    return detail if more <= 0 else f"{detail[:_SHOWN_CHARACTERS]}... and {more} characters more, see --json"


def _summary(found: list[Diagnosis]) -> str:
    if not found:
        return "nothing is stuck"
    number = sum(item.count for item in found)
    return f"{number} {'execution does' if number == 1 else 'executions do'} not go on"

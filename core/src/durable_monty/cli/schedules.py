"""`schedule create`, `list`, `pause`, `resume`, `delete` and `backfill`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from durable_monty.cli.output import (
    Group,
    config_option,
    fail,
    json_option,
    open_service,
    plain_json,
    print_json,
    print_table,
    read_time,
    say,
    shown_time,
)


@click.group(cls=Group)
def schedule() -> None:
    """Start workflows again and again."""


@schedule.command()
@click.argument("name")
@click.argument("target", metavar="FILE.py[:WORKFLOW]")
@click.option("--cron", metavar="LINE", help="Minute, hour, day of month, month, day of week: '0 6 * * MON-FRI'.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Time zone of the cron line.")
@click.option("--every", metavar="DURATION", help="Instead of --cron: 90s, 15m, 12h, 1d.")
@click.option(
    "--overlap",
    type=click.Choice(("skip", "queue", "cancel")),
    default="skip",
    show_default=True,
    help="What happens while the last execution lives.",
)
@click.option("--input", "inputs", multiple=True, metavar="KEY=JSON", help="An input of the workflow.")
@click.option("--time-input", metavar="KEY", help="The input that gets the time that an execution is started for.")
@click.option("--function", "functions", multiple=True, metavar="MODULE:NAME", help="A host function of plain source.")
@click.option("--no-check", is_flag=True, help="Do not type-check the workflow first.")
@config_option
def create(
    name: str,
    target: str,
    cron: str | None,
    timezone: str,
    every: str | None,
    overlap: str,
    inputs: Sequence[str],
    time_input: str | None,
    functions: Sequence[str],
    no_check: bool,
    config_path: str | None,
) -> None:
    """Let workers start a workflow at every time of a cron line, or again and again after an interval."""
    from durable_monty.cli.target import read_inputs, read_target
    from durable_monty.durations import parse_duration

    service = open_service(config_path)
    values = read_inputs(inputs)
    chosen = read_target(target, functions)
    try:
        service.create_schedule(
            name,
            chosen.workflow,
            cron=cron,
            timezone=timezone,
            interval_seconds=None if every is None else parse_duration(every),
            overlap=overlap,  # type: ignore[arg-type]  # click has checked it
            inputs=values,
            time_input=time_input,
            external_functions=chosen.functions,
            check=not no_check,
            filename=chosen.filename,
        )
    except ValueError as error:
        fail(str(error))


@schedule.command("list")
@json_option
@config_option
def list_(as_json: bool, config_path: str | None) -> None:
    """List schedules."""
    found = open_service(config_path).list_schedules()
    if as_json:
        print_json([{**item, "inputs": plain_json(item["inputs"])} for item in found])
        return
    rows = [
        (
            item["name"],
            item["workflow"],
            item["cron"] or f"every {item['interval_seconds']:g} s",
            item["timezone"],
            item["overlap"],
            "paused" if item["is_paused"] else shown_time(item["next_at"]),
            item["last_execution"],
            len(item["queued"]),
        )
        for item in found
    ]
    print_table(("schedule", "workflow", "times", "zone", "overlap", "next", "last execution", "queued"), rows)


@schedule.command()
@click.argument("name")
@config_option
def pause(name: str, config_path: str | None) -> None:
    """Start nothing until the schedule is resumed."""
    open_service(config_path).pause_schedule(name)


@schedule.command()
@click.argument("name")
@config_option
def resume(name: str, config_path: str | None) -> None:
    """Go on with the next time; times that have passed are left to `backfill`."""
    open_service(config_path).resume_schedule(name)


@schedule.command()
@click.argument("name")
@config_option
def delete(name: str, config_path: str | None) -> None:
    """Delete a schedule; what it has started goes on."""
    open_service(config_path).delete_schedule(name)


@schedule.command()
@click.argument("name")
@click.argument("start")
@click.argument("end")
@config_option
def backfill(name: str, start: str, end: str, config_path: str | None) -> None:
    """Start an execution for each time from START to END that has none, and print their ids.

    START and END are in ISO 8601; without an offset they are in the time zone of this machine.
    """
    begin, until = read_time("START", start), read_time("END", end)
    assert begin is not None
    assert until is not None
    for execution_id in open_service(config_path).backfill(name, begin, until):
        say(execution_id)

"""`prune`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from durable_monty.cli.output import config_option, fail, open_service


@click.command()
@click.option("--older-than", required=True, metavar="AGE", help="For example 30d; units are s, m, h, d and w.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(("completed", "failed", "cancelled")),
    help="Only executions that ended like this; may be given several times.",
)
@click.option("--archive", metavar="FILE", help="Append each execution to this file of JSON lines before.")
@click.option("--dry-run", is_flag=True, help="Only print how many would be deleted.")
@config_option
def prune(
    older_than: str, statuses: Sequence[str], archive: str | None, dry_run: bool, config_path: str | None
) -> None:
    """Delete executions that ended longer ago than AGE, and print how many.

    What has not ended is never touched. Killed at any moment, the same command goes on.
    """
    from durable_monty.durations import parse_duration

    service = open_service(config_path)
    chosen = list(statuses) or None
    try:
        seconds = parse_duration(older_than)
        if dry_run:
            click.echo(service.count_ended(seconds, statuses=chosen))
            return
        click.echo(service.delete_ended(seconds, statuses=chosen, archive=archive))
    except ValueError as error:
        fail(f"reading --older-than {older_than!r}: {error}")
    except OSError as error:
        fail(f"writing the archive {archive!r}: {error.strerror}; nothing that is not in it was deleted")

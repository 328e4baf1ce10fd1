"""The command line, `durable-monty`.

Exit codes: 0; 1 if the execution failed, was cancelled or has no result yet, or `doctor` has found something; 2 if the
command line, the configuration or the workflow cannot be used. Results go to stdout, everything else to stderr.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import click

from durable_monty.cli import doctor, looking, plugin, pruning, schedules, settings, starting, steering, working
from durable_monty.cli.commands import ExtensibleGroup


@click.group(cls=ExtensibleGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="durable-monty-core", prog_name="durable-monty")
@click.option("-v", "--verbose", is_flag=True, help="Log every transition to stderr.")
@click.pass_context
def main(context: click.Context, verbose: bool) -> None:
    """Durable execution for ordinary async Python."""
    context.obj = {"verbose": verbose}


for command in (
    starting.run,
    starting.start,
    working.worker,
    looking.list_,
    looking.show,
    looking.result,
    looking.cancel,
    doctor.doctor,
    steering.signal,
    steering.pause,
    steering.resume,
    steering.retry,
    steering.published,
    steering.stream,
    schedules.schedule,
    pruning.prune,
    settings.executors,
    settings.config,
    settings.db,
    plugin.plugin,
):
    main.add_command(command)

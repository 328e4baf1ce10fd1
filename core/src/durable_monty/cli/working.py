"""`worker`."""

from __future__ import annotations

import click

from durable_monty.cli.output import config_option, open_service


@click.command()
@click.option("--until-complete", is_flag=True, help="Exit when no execution is scheduled, running or waiting.")
@click.option("--executor", metavar="NAME", help="The default executor, instead of the configured one.")
@config_option
@click.pass_context
def worker(context: click.Context, until_complete: bool, executor: str | None, config_path: str | None) -> None:
    """Advance executions until SIGTERM.

    Run as many as you like on one database. At SIGTERM the turn in hand is finished, claims are given up, and remote
    jobs go on; a second signal ends the process at once, which loses nothing either.
    """
    from pathlib import Path

    from durable_monty.cli.progress import spare_collector, stopping_on_signals
    from durable_monty.cli.target import make_importable
    from durable_monty.worker import Worker

    make_importable(Path.cwd())
    service = open_service(config_path, verbose=context.obj["verbose"])
    settings = service.runtime.config.worker
    chosen = Worker(service, executor, settings.poll_interval_seconds)
    spare_collector()
    with stopping_on_signals(chosen, settings.stop_grace_seconds):
        chosen.run(until_complete=until_complete)

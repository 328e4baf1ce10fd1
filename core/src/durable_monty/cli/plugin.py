"""`plugin`: for those who write executors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from durable_monty.cli.output import UNUSABLE, Group, config_option, fail


@click.group(cls=Group)
def plugin() -> None:
    """Writing executor plug-ins."""


@plugin.command("new")
@click.argument("name")
@click.option("--into", metavar="FOLDER", default=".", help="Where the new folder is made [default: here].")
def new_plugin(name: str, into: str) -> None:
    """Make a distribution with an executor plug-in NAME that works; change it step by step into yours."""
    from pathlib import Path

    from durable_monty import scaffold

    folder, files = scaffold.create(name, Path(into))
    for file in files:
        click.echo(f"{folder / file}")
    click.echo(f'next: cd {folder} && pip install -e ".[tests]" && pytest')


@plugin.command("test", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PYTEST ARGUMENTS]...")
@config_option
def check_plugin(name: str, arguments: Sequence[str], config_path: str | None) -> None:
    """Run the conformance kit against the configured executor NAME, on its real back end.

    It runs some hundred calls there, and kills a process that it started. Exits with 1 if a promise is broken.
    """
    import importlib.util
    import os
    import subprocess
    from pathlib import Path

    from durable_monty import config, plugins, testing

    if importlib.util.find_spec("pytest") is None:
        fail("running the conformance kit: pytest is not installed; run `pip install durable-monty-core[testing]`")
    plugins.load(name, *config.load(config_path).plugin_of(name))
    suite = Path(testing.__file__).parent / "configured.py"
    # In a process of its own: pytest and what it loads stay out of this one,
    # and without the configuration of whatever project this is called in.
    alone = ["-c", os.devnull, "--rootdir", ".", "--noconftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(suite), "-q", *alone, *arguments],
        env={**os.environ, "KIT_EXECUTOR": name, "KIT_CONFIG": config_path or ""},
        check=False,
    )
    sys.exit(done.returncode if done.returncode in (0, 1) else UNUSABLE)

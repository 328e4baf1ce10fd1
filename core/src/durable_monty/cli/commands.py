"""Commands that plug-ins add to `durable-monty`.

A distribution names a click command in the entry-point group `durable_monty.commands`; the entry point's name is the
command's. It is imported when that command is run and at no other time: `--help` names it without importing it, and a
broken one breaks nothing but itself. A built-in command is never replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from durable_monty.cli.output import Group

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "durable_monty.commands"


class ExtensibleGroup(Group):
    """The built-in commands, and after them those of plug-ins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The built-in commands in their order, then those of plug-ins by name."""
        built_in = super().list_commands(ctx)
        return [*built_in, *sorted(name for name in _entry_points() if name not in built_in)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; a plug-in's is imported now."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            return command
        entry_point = _entry_points().get(cmd_name)
        return _load(entry_point) if entry_point is not None else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in `--help`."""
        rows = []
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(formatter.width)))
        for name, entry_point in sorted(_entry_points().items()):
            if super().get_command(ctx, name) is None:
                rows.append((name, f"Commands of {_distribution(entry_point)}."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {item.name: item for item in entry_points(group=GROUP)}


def _distribution(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist else entry_point.value


def _load(entry_point: EntryPoint) -> click.Command:
    try:
        command: Any = entry_point.load()
    except Exception as error:  # noqa: BLE001 - a plug-in's import may raise anything
        return _broken(entry_point, f"{type(error).__name__}: {error}")
    return command if isinstance(command, click.Command) else _broken(entry_point, f"it is {command!r}, no command")


def _broken(entry_point: EntryPoint, problem: str) -> click.Command:
    """A command that says why it cannot be run."""
    from durable_monty.errors import PluginError

    def say() -> None:
        raise PluginError(
            f"running {entry_point.name!r}: the command {entry_point.value!r} of {_distribution(entry_point)} did not "
            f"load: {problem}; install that distribution again, or report this to its authors"
        )

    return click.Command(
        entry_point.name,
        callback=say,
        help="Cannot be loaded.",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )

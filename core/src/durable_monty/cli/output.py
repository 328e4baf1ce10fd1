"""What the commands have in common: options, errors, logging, tables, JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from datetime import datetime

    from durable_monty.service import OrchestratorService

FAILED = 1
UNUSABLE = 2

C = TypeVar("C", bound=Callable[..., Any])

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Group(click.Group):
    """A group of commands whose errors are one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        from durable_monty.errors import DurableMontyError

        try:
            return super().invoke(ctx)
        except DurableMontyError as error:
            fail(str(error))
        except BrokenPipeError:
            # The reader of a pipe has seen enough.
            sys.stderr.close()
            sys.exit(FAILED)


def fail(message: str, code: int = UNUSABLE) -> NoReturn:
    """Say what is wrong on stderr and exit."""
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def config_option(command: C) -> C:
    """Add `--config PATH`."""
    option = click.option(
        "--config",
        "config_path",
        metavar="PATH",
        help="Configuration file [default: durable-monty.toml, searched upwards].",
    )
    decorated: C = option(command)
    return decorated


def json_option(command: C) -> C:
    """Add `--json`."""
    decorated: C = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
    return decorated


def open_service(config_path: str | None, *, verbose: bool = False) -> OrchestratorService:
    """The service on the configured database."""
    from durable_monty import config
    from durable_monty.service import OrchestratorService
    from durable_monty.store import open_store

    set_up_logging(verbose=verbose)
    chosen = config.load(config_path)
    return OrchestratorService(open_store(chosen.store.url, synchronous=chosen.store.synchronous), chosen)


def set_up_logging(*, verbose: bool) -> None:
    """Log to stderr: warnings, and what workflows print."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("durable_monty").setLevel(logging.INFO if verbose else logging.WARNING)
    prints = logging.getLogger("durable_monty.prints")
    prints.handlers = [logging.StreamHandler(sys.stderr)]
    prints.setLevel(logging.INFO)
    prints.propagate = False


class _Formatter(logging.Formatter):
    """The sentence, then the facts that came with it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class names it
        facts = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        text = super().formatMessage(record)
        return f"{text} ({', '.join(f'{name}={value}' for name, value in facts.items())})" if facts else text


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def plain_json(value: Any) -> Any:
    """A value as JSON shows it: plain types stay plain, the others are tagged as the codec writes them."""
    from durable_monty import codec

    return json.loads(codec.dumps(value))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns, each as wide as its widest cell."""
    cells = [list(headings), *[["" if item is None else str(item) for item in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def shown_time(seconds: float | None) -> str | None:
    """A time for people, in their own time zone."""
    if seconds is None:
        return None
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def read_time(option: str, text: str | None) -> datetime | None:
    """A time that somebody typed: ISO 8601; without an offset it is in the time zone of this machine."""
    if text is None:
        return None
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        fail(f"reading {option} {text!r}: it is no time; write it like 2026-03-01 or 2026-03-01T06:00:00+00:00")


def read_tags(items: Sequence[str]) -> dict[str, str] | None:
    """Tags that somebody typed as `NAME=VALUE`; None: none."""
    tags: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator or not name:
            fail(f"reading --tag {item!r}: write NAME=VALUE, for example --tag customer=ada")
        if name in tags:
            fail(f"reading --tag {item!r}: {name!r} is given twice")
        tags[name] = value
    return tags or None

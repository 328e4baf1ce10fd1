"""What the commands have in common: options, errors, logging, tables, JSON."""

from __future__ import annotations

import json
import logging
import re
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

# C0 and C1 controls, DEL, line separators, and the marks that turn the direction of writing around; surrogates.
_NOT_IN_A_LINE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
_NOT_IN_A_TEXT = re.compile(_NOT_IN_A_LINE.pattern.replace("\\x00-\\x1f", "\\x00-\\x08\\x0b-\\x1f"))
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


def visible(text: str, *, is_line: bool = False) -> str:
    r"""The text with what a terminal would obey instead of showing it written as an escape, such as `\x1b`.

    Texts of users, of workflows and of what they talk to may hold sequences that recolour, retitle or type into a
    terminal, and marks that change the order of what is read.

    Args:
        is_line: Write line ends and tabs as escapes as well, so that a text cannot pass for more lines than one.
    """
    return (_NOT_IN_A_LINE if is_line else _NOT_IN_A_TEXT).sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def say(text: object = "", *, err: bool = False) -> None:
    """Print a text of one or more lines."""
    click.echo(visible(str(text)), err=err)


def say_line(text: object, *, err: bool = False) -> None:
    """Print one line, whatever the text holds."""
    click.echo(visible(str(text), is_line=True), err=err)


def fail(message: str, code: int = UNUSABLE) -> NoReturn:
    """Say what is wrong on stderr and exit."""
    say(f"error: {message}", err=True)
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
    printed = logging.StreamHandler(sys.stderr)
    printed.setFormatter(_Visible("%(message)s"))
    prints.handlers = [printed]
    prints.setLevel(logging.INFO)
    prints.propagate = False


class _Visible(logging.Formatter):
    """A record as a terminal may have it."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _Formatter(_Visible):
    """The sentence, then the facts that came with it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class names it
        facts = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        text = super().formatMessage(record)
        return f"{text} ({', '.join(f'{name}={value}' for name, value in facts.items())})" if facts else text


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    r"""JSON that a terminal shows and does not obey: control characters and the like stand as `\u001b`."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return _NOT_IN_A_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain_json(value: Any) -> Any:
    """A value as JSON shows it: plain types stay plain, the others are tagged as the codec writes them."""
    from durable_monty import codec

    return json.loads(codec.dumps(value))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns, each as wide as its widest cell."""
    shown = [["" if item is None else visible(str(item), is_line=True) for item in row] for row in rows]
    cells = [list(headings), *shown]
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

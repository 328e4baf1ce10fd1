"""Writes the pages that are made of docstrings: hooks, promises of the kit, errors, settings of executors.

python docs/generate.py            writes them
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from durable_monty import errors, models, observerspecs, plugins
from durable_monty.hookspecs import HOOKS, REQUIRED_HOOKS, ExecutorContext, ExecutorSpec
from durable_monty.testing import ExecutorSuite

DOCS = Path(__file__).parent
_MADE = "<!-- Made by docs/generate.py from the source; change it there. -->"
_RECORDS = (
    models.Call, models.Job, models.Accepted, models.Refused, models.Outcome, models.Heartbeat, models.Failure, models.Finding,
    models.Capabilities, ExecutorContext,
)  # fmt: skip


def hooks() -> str:
    """Every hook, with its signature and everything its docstring says, and the records that pass through them."""
    lines = [_MADE, "", "# Hooks of an executor", "", _prose(inspect.getdoc(inspect.getmodule(ExecutorSpec)) or ""), ""]
    for name in HOOKS:
        function = getattr(ExecutorSpec, name)
        signature = str(inspect.signature(function)).replace("self, ", "").replace("(self)", "()")
        kind = "required" if name in REQUIRED_HOOKS else "optional"
        lines += [
            f"## `{name}`",
            "",
            f"`{name}{_bare(signature)}`, {kind}.",
            "",
            *_hook(inspect.getdoc(function) or ""),
            "",
        ]
    lines += [
        "## Records",
        "",
        "All are frozen dataclasses, from `durable_monty.models` and `durable_monty.hookspecs`.",
        "",
    ]
    for record in _RECORDS:
        lines += [f"### `{record.__name__}`", "", *_record(inspect.getdoc(record) or ""), ""]
    return "\n".join(lines)


def observer_hooks() -> str:
    """Every hook of observers, and the records that they are told."""
    lines = [_MADE, "", "# Hooks of an observer", ""]
    for part in (inspect.getdoc(observerspecs) or "").split("\n\n"):
        lines += (
            [*(f"* {_prose(item)}" for item in part.removeprefix("* ").split("\n* ")), ""]
            if part[0] == "*"
            else [_prose(part), ""]
        )
    for name, function in vars(observerspecs.ObserverSpec).items():
        if not name.startswith("_"):
            signature = _bare(str(inspect.signature(function)).replace("self, ", ""))
            lines += [f"## `{name}`", "", f"`{name}{signature}`", "", *_hook(inspect.getdoc(function) or ""), ""]
    lines += [
        "## Records",
        "",
        "All are frozen dataclasses, from `durable_monty.observerspecs`. Those of calls have what",
        "`CallEvent` has.",
        "",
    ]
    for name, record in vars(observerspecs).items():
        if inspect.isclass(record) and record.__module__ == observerspecs.__name__ and name != "ObserverSpec":
            lines += [f"### `{name}`", "", *_record(inspect.getdoc(record) or ""), ""]
    return "\n".join(lines)


def promises() -> str:
    """Every promise of the kit, by group."""
    lines = [
        _MADE,
        "",
        "# Promises of an executor",
        "",
        "What `durable_monty.testing.ExecutorSuite` tests, by group.",
        "",
    ]
    for group in reversed(ExecutorSuite.__mro__[1:-2]):
        lines += [
            f"## {inspect.getmodule(group).__name__.rpartition('.')[2].capitalize()}",
            "",
            inspect.getdoc(group) or "",
            "",
        ]  # type: ignore[union-attr]  # it has one
        for name, function in vars(group).items():
            if name.startswith("test_"):
                why = " ".join((function.__doc__ or "").split())
                lines.append(
                    f"* **{name.removeprefix('test_').replace('_', ' ')}**{': ' + why if why else ''} (`{name}`)"
                )
        lines.append("")
    return "\n".join(lines)


def error_classes() -> str:
    """Every error, with what it means."""
    lines = [_MADE, "", "# Errors", "", "All derive from `durable_monty.DurableMontyError`.", ""]
    lines += ["| error | also a | meaning |", "|---|---|---|"]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.DurableMontyError):
            builtin = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins"]
            meaning = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
            lines.append(f"| `{name}` | {', '.join(f'`{base}`' for base in builtin)} | {meaning} |")
    return "\n".join([*lines, ""])


def settings() -> str:
    """Every setting of every installed plug-in of this project."""
    lines = [_MADE, "", "# Settings of the executors", "", "Keys of `[executors.NAME]`, by plug-in.", ""]
    for name, info in plugins.available().items():
        if info.distribution != f"durable-monty-{name}":
            continue
        lines += [
            f"## `{name}` (`pip install {info.distribution}`)",
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for key, field in plugins.plugin_class(name).Settings.model_fields.items():
            default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
            lines.append(f"| `{key}` | {default} | {_cell(field.description or '')} |")
        lines.append("")
    return "\n".join(lines)


PAGES = {
    "executors/hooks.md": hooks,
    "executors/promises.md": promises,
    "reference/errors.md": error_classes,
    "reference/executors.md": settings,
    "reference/observers.md": observer_hooks,
}


def _hook(text: str) -> Iterator[str]:
    first, _, rest = text.partition("\n\n")
    yield first
    yield ""
    for label, said in re.findall(r"^([A-Z][\w ]+): ((?:.|\n(?![A-Z][\w ]+: ))+)", rest, re.MULTILINE):
        yield f"* **{label}**: {' '.join(said.split())}"


def _record(text: str) -> Iterator[str]:
    first, _, rest = text.partition("Attributes:")
    yield _prose(first)
    yield ""
    for name, said in re.findall(r"^ {4}(\w+): ((?:.|\n {8})+)", rest, re.MULTILINE):
        yield f"* `{name}`: {' '.join(said.split())}"


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _bare(signature: str) -> str:
    return signature.replace("'", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the pages."""
    for page, make in PAGES.items():
        (DOCS / page).write_text(make().rstrip() + "\n", encoding="utf-8")
        sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main()

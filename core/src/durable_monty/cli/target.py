"""What `run` and `start` are given: a file, its workflow, inputs and host functions."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable_monty.errors import DurableMontyError, WorkflowSourceError
from durable_monty.functions import normalized
from durable_monty.parsing import parse
from durable_monty.workflows import Workflow


class UsageProblem(DurableMontyError):
    """Something on the command line that cannot be used."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be started.

    Attributes:
        workflow: A `@workflow` function, or source text.
        functions: Dotted paths of host functions; None: those that the `@workflow` function names.
        filename: The file's name as tracebacks show it.
    """

    workflow: str | Workflow[..., Any]
    functions: list[str] | None
    filename: str


def read_target(argument: str, functions: Sequence[str]) -> Target:
    """The target that `FILE.py[:workflow]` names.

    Puts the file's folder and the working directory first on `sys.path`.

    Raises:
        UsageProblem: There is no such file, or it has not the workflow that was named.
        WorkflowSourceError: It cannot be imported.
    """
    name, _, wanted = argument.rpartition(":") if _names_workflow(argument) else (argument, "", "")
    file = Path(name)
    if not file.is_file():
        raise UsageProblem(f"starting {argument!r}: there is no file {str(file)!r}")
    make_importable(file.resolve().parent, Path.cwd())
    paths = [normalized(path) for path in functions]
    text = _read(file)
    if wanted or _declares_workflow(text):
        return Target(_workflow_of(file, wanted), paths or None, str(file))
    return Target(text, paths, str(file))


def make_importable(*folders: Path) -> None:
    """Put folders first on `sys.path`, in this order."""
    names = [str(folder) for folder in folders]
    sys.path[:] = [*dict.fromkeys(names), *[path for path in sys.path if path not in names]]


def read_inputs(items: Sequence[str]) -> dict[str, Any]:
    """The inputs that `KEY=JSON` items give.

    Raises:
        UsageProblem: An item is not of that form; the message names its key.
    """
    inputs: dict[str, Any] = {}
    for item in items:
        key, separator, text = item.partition("=")
        if not separator or not key.isidentifier():
            raise UsageProblem(f"reading --input {item!r}: write KEY=JSON, for example --input limit=100")
        if key in inputs:
            raise UsageProblem(f"reading --input {item!r}: {key!r} is given twice")
        try:
            inputs[key] = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageProblem(
                f"reading --input {key!r}: {text!r} is not JSON ({error.msg}); write text in double quotes: "
                f"--input '{key}=\"{text}\"'"
            ) from error
    return inputs


def _names_workflow(argument: str) -> bool:
    return argument.rpartition(":")[2].isidentifier() and ".py:" in argument


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"reading {str(file)!r}: {error}") from error


def _declares_workflow(text: str) -> bool:
    """Whether the file has a `@workflow` function; if it cannot be parsed, the check at submit says so."""
    try:
        tree = parse(text)
    except (SyntaxError, ValueError):
        return False
    return any(
        isinstance(node, ast.AsyncFunctionDef) and any(_is_workflow(item) for item in node.decorator_list)
        for node in tree.body
    )


def _is_workflow(decorator: ast.expr) -> bool:
    name = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", None)
    return name == "workflow"


def _workflow_of(file: Path, wanted: str) -> Workflow[..., Any]:
    module = _import(file)
    found = {
        name: item
        for name, item in vars(module).items()
        if isinstance(item, Workflow) and item.__wrapped__.__module__ == module.__name__
    }
    known = ", ".join(sorted(found)) or "none"
    if wanted:
        if wanted not in found:
            raise UsageProblem(f"starting {wanted!r} of {str(file)!r}: its workflows are: {known}")
        return found[wanted]
    if len(found) != 1:
        raise UsageProblem(f"starting {str(file)!r}: it has {len(found)} workflows ({known}); name one: {file}:NAME")
    return next(iter(found.values()))


def _import(file: Path) -> Any:
    stem = file.stem
    if not stem.isidentifier():
        raise UsageProblem(f"importing {str(file)!r}: {stem!r} is not a module's name; rename the file")
    try:
        module = importlib.import_module(stem)
    except DurableMontyError:
        raise
    except Exception as error:
        raise WorkflowSourceError(f"importing {str(file)!r}: {type(error).__name__}: {error}") from error
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != file.resolve():
        raise UsageProblem(f"importing {str(file)!r}: another module is called {stem!r} ({found}); rename the file")
    return module

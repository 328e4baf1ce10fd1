"""Findings in a workflow's text that the sandbox's own check does not report, though they fail when they are run."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence

from durable_monty.errors import Problem
from durable_monty.parsing import parse
from durable_monty.sandbox import MISSING_BUILTINS


def lint(text: str, lines: Sequence[int], defined: Collection[str]) -> list[Problem]:
    """Uses of what the sandbox lacks.

    Args:
        lines: For each line of the text the line in the user's file.
        defined: Names that stand for something else than Python's builtins.
    """
    tree = parse(text)
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    found = []
    for node in ast.walk(tree):
        message = _missing_builtin(node, own | set(defined)) or _return_exceptions(node)
        if message is not None:
            line: int = getattr(node, "lineno", 1)
            column: int = getattr(node, "col_offset", 0) + 1
            found.append(Problem(lines[line - 1], column, message, text.split("\n")[line - 1]))
    return found


def _missing_builtin(node: ast.AST, defined: Collection[str]) -> str | None:
    if isinstance(node, ast.Name) and node.id in MISSING_BUILTINS and node.id not in defined:
        return f"the sandbox has no {node.id!r}; put what needs it into a host function"
    return None


def _return_exceptions(node: ast.AST) -> str | None:
    if isinstance(node, ast.Call) and any(keyword.arg == "return_exceptions" for keyword in node.keywords):
        return "gather() takes no return_exceptions in the sandbox; use `settle` from durable_monty.flow"
    return None

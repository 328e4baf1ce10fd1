"""Having a workflow's own `gather` tell which task runs: a change of its text, line by line, before it is fed.

Needed only where a workflow has races (`durable_monty.interpreter.scopes`). The text that is checked, shown and quoted
in tracebacks is the user's.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import TypeGuard

from durable_monty.parsing import parse

SCOPED_GATHER = "_scoped_gather"


def with_scoped_gather(text: str) -> str:
    """The text with `asyncio.gather` replaced, however it is imported; every line keeps its number."""
    tree = parse(text)
    lines = text.split("\n")
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "asyncio"
    }
    # From the end, so that positions before a change stay what they were.
    for node in sorted(ast.walk(tree), key=_place, reverse=True):
        if isinstance(node, ast.ImportFrom) and node.module == "asyncio" and not node.level:
            _replace(lines, node, _import_text(node))
        elif _is_gather(node, modules):
            _replace(lines, node, SCOPED_GATHER)
    return "\n".join(lines)


def _is_gather(node: ast.AST, modules: Collection[str]) -> TypeGuard[ast.Attribute]:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "gather"
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
    )


def _place(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _import_text(node: ast.ImportFrom) -> str:
    """The same import as statements of one line."""
    others = [alias for alias in node.names if alias.name != "gather"]
    parts = [f"{alias.asname or alias.name} = {SCOPED_GATHER}" for alias in node.names if alias.name == "gather"]
    if others:
        names = ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in others)
        parts.insert(0, f"from asyncio import {names}")
    return "; ".join(parts)


def _replace(lines: list[str], node: ast.stmt | ast.expr, new: str) -> None:
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    before = lines[first].encode()[: node.col_offset].decode()
    after = lines[last].encode()[node.end_col_offset :].decode()
    lines[first : last + 1] = [f"{before}{new}{after}", *[""] * (last - first)]

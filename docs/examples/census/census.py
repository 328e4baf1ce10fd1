"""What is the Python standard library made of?

One host function lists the library's files, one per file parses it, and the workflow adds the figures up. Run it, kill
it at any moment, run it again: no file that was finished is parsed a second time.
"""

from __future__ import annotations

import ast
import os
import sysconfig
import warnings
from asyncio import gather
from pathlib import Path
from typing import Any

from durable_monty import function, workflow

# What pip installs is not part of it.
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}
TOP = 10

# Some of the library's tests are written to be warned about.
warnings.filterwarnings("ignore", category=SyntaxWarning)


@function
def list_files(limit: int | None) -> list[str]:
    """The library's source files, sorted; the first `limit` of them, or all.

    Raises:
        ValueError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1, or null for all files")
    found = []
    for folder, names, files in os.walk(sysconfig.get_path("stdlib")):
        names[:] = [name for name in names if name not in SKIPPED_FOLDERS]
        found += [str(Path(folder, file)) for file in files if file.endswith(".py")]
    return sorted(found)[:limit]


@function
def measure(path: str) -> dict[str, Any]:
    """The figures of one file; appends its path to the ledger when they are known."""
    source = Path(path).read_bytes()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        # The library's tests keep a few files that are not meant to be parsed.
        tree = ast.Module(body=[], type_ignores=[])
    nodes = list(ast.walk(tree))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max(functions, key=lambda node: (length(node), node.name), default=None)
    figures: dict[str, Any] = {
        "path": path,
        "lines": len(source.splitlines()),
        "functions": len(functions),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "longest_function": longest.name if longest else None,
        "longest_function_lines": length(longest) if longest else 0,
        "imports": sorted(imported(nodes)),
    }
    note_in_ledger(path)
    return figures


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its first and last included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def imported(nodes: list[ast.AST]) -> set[str]:
    """The top-level modules that are imported, relative imports left out."""
    names = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module.partition(".")[0]
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }


def note_in_ledger(path: str) -> None:
    """Append one line; a single write of an unbuffered file is whole or not there, whatever is killed when."""
    ledger = os.environ.get("CENSUS_LEDGER", "census-ledger.txt")
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{path}\n".encode())
    finally:
        os.close(file)


@workflow
async def census(limit: int | None = None) -> dict[str, Any]:
    paths = await list_files(limit)
    files = await gather(*[measure(path) for path in paths])
    imports: dict[str, int] = {}
    for figures in files:
        for name in figures["imports"]:
            imports[name] = imports.get(name, 0) + 1
    by_length = sorted(files, key=lambda figures: (-figures["longest_function_lines"], figures["path"]))
    by_use = sorted(imports.items(), key=lambda item: (-item[1], item[0]))
    return {
        "files": len(files),
        "totals": {
            "lines": sum([figures["lines"] for figures in files]),
            "functions": sum([figures["functions"] for figures in files]),
            "classes": sum([figures["classes"] for figures in files]),
            "imported_modules": len(imports),
        },
        "longest_functions": [
            {
                "function": figures["longest_function"],
                "lines": figures["longest_function_lines"],
                "path": figures["path"],
            }
            for figures in by_length[:TOP]
        ],
        "most_imported": [{"module": name, "files": count} for name, count in by_use[:TOP]],
    }

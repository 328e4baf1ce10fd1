"""A new executor plug-in, as a distribution that works: `durable-monty plugin new NAME`."""

from __future__ import annotations

import re
from pathlib import Path

from durable_monty.errors import PluginError

TEMPLATE = Path(__file__).parent / "template"

FILES = {
    "pyproject.toml.template": "pyproject.toml",
    "README.md.template": "README.md",
    "init.py.template": "src/{module}/__init__.py",
    "executor.py.template": "src/{module}/executor.py",
    "py.typed.template": "src/{module}/py.typed",
    "conformance.py.template": "tests/test_conformance.py",
    "workflow.yml.template": ".github/workflows/tests.yml",
}
"""By template, the file that is made of it."""


def create(name: str, parent: Path) -> tuple[Path, list[str]]:
    """Write a new distribution into the folder `durable-monty-NAME` below `parent`.

    Returns:
        The folder, and its files relative to it.

    Raises:
        PluginError: The name cannot be one, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise PluginError(
            f"making the plug-in {name!r}: a name begins with a lower-case letter and goes on with lower-case letters, "
            "digits and _; choose such a name"
        )
    words = {
        "name": name,
        "class": name.title().replace("_", ""),
        "distribution": f"durable-monty-{name.replace('_', '-')}",
        "module": f"durable_monty_{name}",
    }
    folder = parent / words["distribution"]
    if folder.exists():
        raise PluginError(f"making the plug-in {name!r}: {str(folder)!r} exists; choose another name or folder")
    made = []
    for template, target in FILES.items():
        file = folder / target.format(**words)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_replaced((TEMPLATE / template).read_text(encoding="utf-8"), words), encoding="utf-8")
        made.append(str(file.relative_to(folder)))
    return folder, made


def _replaced(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text

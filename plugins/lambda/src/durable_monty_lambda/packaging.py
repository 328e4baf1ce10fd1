"""The deployment package: a zip that is the same, byte for byte, whenever it is built from the same files."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

CORE_MODULES = (
    "__init__", "_prelude", "codec", "convert", "envelope", "errors", "extraction", "flow", "functions", "heartbeats",
    "models", "overrides", "parsing", "policies", "remote", "signing", "workflows",
)  # fmt: skip
"""The remote side of the core, and what a module with a `@workflow` in it imports."""
OWN_MODULES = ("__init__", "events", "remote", "remote_durable")
_TIME = (1980, 1, 1, 0, 0, 0)
_SKIPPED = {"__pycache__", ".git", ".venv"}


class PackageProblem(Exception):
    """A package that cannot be built as asked."""


def build(output: Path, modules: Sequence[str], folders: Sequence[Path] = ()) -> list[str]:
    """Write the package; gives the names of its files.

    Args:
        modules: Names of the user's modules or packages.
        folders: Folders whose content is put in at the top.

    Raises:
        PackageProblem: A module or folder is not there, or two files would have the same name.
    """
    files: dict[str, bytes] = {}
    for name, data in (*_core(), *_users(modules), *_contents(folders)):
        if files.get(name, data) != data:
            raise PackageProblem(f"building {str(output)!r}: two different files would be {name!r}; leave one out")
        files[name] = data
    output.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return sorted(files)


def _core() -> Iterator[tuple[str, bytes]]:
    for package, distribution, names in (
        ("durable_monty", "durable-monty-core", CORE_MODULES),
        ("durable_monty_lambda", "durable-monty-lambda", OWN_MODULES),
    ):
        folder = _origin(package).parent
        for name in names:
            yield f"{package}/{name}.py", (folder / f"{name}.py").read_bytes()
        # Enough for importlib.metadata to say which version this is.
        number = version(distribution)
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {number}\n"
        yield f"{distribution.replace('-', '_')}-{number}.dist-info/METADATA", text.encode()


def _users(modules: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    sys.path.insert(0, str(Path.cwd()))
    try:
        for module in modules:
            yield from _module(module)
    finally:
        sys.path.remove(str(Path.cwd()))


def _module(module: str) -> Iterator[tuple[str, bytes]]:
    if module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
        raise PackageProblem(f"looking for {module!r}: that is not a module's name; write `shop`, not `shop.py`")
    top = module.partition(".")[0]
    origin = _origin(top)
    if origin.name == "__init__.py":
        yield from _tree(origin.parent, top)
    else:
        yield f"{top}.py", origin.read_bytes()


def _origin(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise PackageProblem(
            f"looking for {module!r}: there is no such module of Python source here; run this in the folder that has it, "
            "or put it in with --folder"
        )
    return Path(spec.origin)


def _contents(folders: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        if not folder.is_dir():
            raise PackageProblem(
                f"reading the folder {str(folder)!r}: there is none; give one that `pip --target` filled"
            )
        yield from _tree(folder, "")


def _tree(folder: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _SKIPPED.intersection(path.relative_to(folder).parts):
            name = path.relative_to(folder).as_posix()
            yield (f"{prefix}/{name}" if prefix else name), path.read_bytes()

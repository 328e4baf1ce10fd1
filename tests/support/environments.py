"""Environments with what this one has installed, and one distribution more."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path


def new_environment(folder: Path, *, with_pip: bool = False) -> Path:
    """The interpreter of a new environment that sees what this one has installed."""
    venv.create(folder, symlinks=True, with_pip=with_pip)
    (site,) = folder.glob("lib/python*/site-packages")
    mine = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "shared.pth").write_text(f"import site; site.addsitedir({mine!r})\n")
    scripts = Path(sys.executable).parent
    # Found beside the interpreter; a script of pip's would run the interpreter that it was installed for.
    (folder / "bin" / "monty").symlink_to(scripts / "monty")
    pytest = folder / "bin" / "pytest"
    pytest.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m pytest "$@"\n')
    pytest.chmod(0o755)
    return folder / "bin" / "python"


def build(project: Path, folder: Path) -> Path:
    """The wheel of a project, which is not touched otherwise."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(python: Path, wheel: Path) -> None:
    """Install a wheel, and nothing that it requires, without an index."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)

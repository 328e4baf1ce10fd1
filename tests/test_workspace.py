"""The repository keeps its own rules."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECTS = sorted([ROOT, ROOT / "core", *(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))])
PACKAGES = sorted(path for path in ROOT.glob("*/**/src/*") if (path / "__init__.py").exists())


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def run_python(code, *flags):
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_import_contracts_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_all_distributions_have_one_version():
    assert {project(folder)["version"] for folder in PROJECTS} == {"0.2.0"}


def test_the_distributions_require_each_other_in_this_version():
    """The one that most users install pins its parts exactly; plug-ins take every core of this minor version."""
    for folder in PROJECTS:
        optional = project(folder).get("optional-dependencies", {}).values()
        requirements = map(
            Requirement, [*project(folder)["dependencies"], *(item for group in optional for item in group)]
        )
        own = {item.name: str(item.specifier) for item in requirements if item.name.startswith("durable-monty")}
        wanted = "==0.2.0" if folder == ROOT else "<0.3,>=0.2"
        assert set(own.values()) <= {wanted}, f"{folder.name}: {own}"
        assert own or folder.name == "core"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_package_says_that_it_is_typed(package):
    assert (package / "py.typed").exists()


def test_every_executor_is_found_by_its_entry_point():
    for folder in PROJECTS:
        for name, target in project(folder).get("entry-points", {}).get("durable_monty.executors", {}).items():
            assert target == f"durable_monty_{name}:Executor"


def test_the_wheel_of_the_core_holds_the_migrations(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT / "core",
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"0001_initial.py", "0002_semantics.py"} <= {Path(name).name for name in names}
    assert "durable_monty/py.typed" in names
    assert "durable_monty/scaffold/template/pyproject.toml.template" in names
    assert not [name for name in names if "test" in name and not name.startswith("durable_monty/testing/")]


def test_importing_the_package_imports_the_standard_library_only():
    code = "import sys; before = set(sys.modules); import durable_monty; print(*set(sys.modules) - before)"
    loaded = {name.partition(".")[0] for name in run_python(code).split()}
    assert loaded - sys.stdlib_module_names == {"durable_monty"}
    assert "asyncio" not in loaded


def test_the_remote_side_works_without_a_single_third_party_package(tmp_path):
    """`-I -S`: no site-packages at all; only the core's own source is on the path."""
    (tmp_path / "shop.py").write_text("def price(n):\n    return 100 * n\n")
    code = f"""
import sys
sys.path[:0] = [{str(ROOT / "core" / "src")!r}, {str(tmp_path)!r}]
from durable_monty import remote
remote.configure(allow=["shop.*"])
reply = remote.run(remote.make_envelope("shop.price", [7], job_id="e-0-1"))
print(remote.read_reply(reply).value)
"""
    assert run_python(code, "-I", "-S") == "700\n"


def test_nothing_of_a_machine_is_in_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        files = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        hidden = re.compile(r"/(\.venv|\.nox|\.git|dist|__pycache__|\.\w+_cache|[\w-]+\.egg-info)(/|$)")
        files = [path for path in ROOT.rglob("*") if path.is_file() and not hidden.search(str(path))]
    forbidden = re.compile(r"/(?:home|root|Users|work)/\w|\bindex-url\b|https?://(?!\w)[\w.-]*pypi[\w.-]*/simple")
    found = []
    for path in files:
        if path == Path(__file__) or not path.exists():
            continue
        text = path.read_text(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in forbidden.finditer(text)]
    assert not [item for item in found if "noxfile.py: index-url" not in item]

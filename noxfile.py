"""The chores of this project; `nox -l` lists them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

ROOT = Path(__file__).parent
WANTED = ("3.11", "3.12", "3.13")
PACKAGES = ("core", *sorted(f"plugins/{path.parent.name}" for path in ROOT.glob("plugins/*/pyproject.toml")), ".")
CONSTRAINTS = str(ROOT / "constraints.txt")

# What `nox -s bench` measures beside peers.
WORKLOADS = {*(f"W{number}" for number in range(1, 8)), "counts", "profiles", "claims"}

# Sources and annotations, values, threads and processes: what another interpreter may do in another way.
ON_EVERY_PYTHON = (
    *("core/tests", "plugins/local/tests"),
    *(f"tests/test_{name}.py" for name in ("author_kit", "cli", "execution", "properties", "seed", "service")),
)

# pyenv's shims of versions that are not switched on fail when they are run, which looks as if there was no such
# interpreter. The interpreters themselves come first.
_PYENV = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
_REAL = [str(path) for path in sorted(_PYENV.glob("versions/3.*/bin"))]
os.environ["PATH"] = os.pathsep.join([*_REAL, os.environ["PATH"]])

nox.needs_version = ">=2025.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]


def _works(version: str) -> bool:
    python = shutil.which(f"python{version}")
    return python is not None and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


FOUND = [version for version in WANTED if _works(version)]


def _install(session: nox.Session, group: str) -> None:
    """Install every distribution of the workspace, editable, with what a group of pyproject.toml names."""
    editable = [argument for package in PACKAGES for argument in ("-e", package)]
    requirements = nox.project.dependency_groups(nox.project.load_toml(str(ROOT / "pyproject.toml")), group)
    session.install("-c", CONSTRAINTS, *editable, *requirements)


@nox.session(python=FOUND or None)
def tests(session: nox.Session) -> None:
    """Run the tests on each supported Python of this machine; those it lacks are named."""
    missing = sorted(set(WANTED) - set(FOUND))
    if missing:
        session.warn(f"NOT TESTED on Python {', '.join(missing)}: no such interpreter on this machine")
    _install(session, "tests")
    arguments = session.posargs or ["-n", "2", "--dist", "worksteal"]
    # On the first one everything; on the others what depends on the interpreter.
    if not session.posargs and session.python not in (None, *FOUND[:1]):
        arguments += ["-m", "not examples and not chaos and not planted and not thorough and not slow"]
        arguments += ["-k", "not postgresql and not conformance", *ON_EVERY_PYTHON]
    session.run("pytest", "-q", *arguments)


@nox.session(python=FOUND[:1] or None)
def lint(session: nox.Session) -> None:
    """Check style, formatting and who imports whom."""
    _install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session(python=FOUND[:1] or None)
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    _install(session, "dev")
    session.run("mypy", *[str(path) for path in sorted(ROOT.glob("**/src/*")) if (path / "py.typed").exists()])
    session.run("mypy", "noxfile.py", "tests/typing/api.py")


@nox.session(python=FOUND[:1] or None)
def wheels(session: nox.Session) -> None:
    """Build every distribution into dist/ and use them from a clean environment outside the workspace."""
    session.install("-c", CONSTRAINTS, "build", "hatchling")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for package in PACKAGES:
        session.run("python", "-m", "build", "-q", "--wheel", "--no-isolation", "--outdir", str(dist), package)
    folder = Path(session.create_tmp()).resolve()
    environment = folder / "environment"
    session.run("python", "-m", "venv", "--clear", str(environment))
    python = str(environment / "bin" / "python")
    session.run(
        python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, *map(str, sorted(dist.glob("*.whl"))), external=True
    )
    session.chdir(folder)
    session.run(str(environment / "bin" / "durable-monty"), "--help", external=True)
    session.run(str(environment / "bin" / "durable-monty"), "executors", "check", external=True)
    example = ROOT / "docs" / "examples" / "census" / "census.py"
    arguments = ["run", str(example), "--input", "limit=20"]
    session.run(str(environment / "bin" / "durable-monty"), *arguments, external=True, silent=True)


@nox.session(python=FOUND[:1] or None)
def bench(session: nox.Session) -> None:
    """Measure ours beside bare commits, or, `nox -s bench -- W1 W3 ...`, beside peers."""
    _install(session, "tests")
    if not set(session.posargs) & WORKLOADS:
        session.run("python", "tests/bench", *session.posargs)
        return
    # Peers live in an environment of their own; one that cannot be installed makes a row that says so.
    peers = Path(session.create_tmp()) / "peers"
    session.run("python", "-m", "venv", str(peers))
    requirements = str(ROOT / "tests" / "bench" / "peers" / "requirements.txt")
    python = str(peers / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", "-r", requirements, external=True, success_codes=[0, 1])
    session.run("python", "tests/bench/peers", *session.posargs, "--peers-python", python)


@nox.session(python=FOUND[:1] or None)
def thorough(session: nox.Session) -> None:
    """Run the tests that take minutes: the kit on Lambda and on its broken executors, the tutorial for authors."""
    _install(session, "tests")
    session.run("pytest", "-q", "-n", "2", "--dist", "worksteal", "-m", "thorough", *session.posargs)


@nox.session(python=FOUND[:1] or None)
def examples(session: nox.Session) -> None:
    """Run the documented examples as a user would."""
    _install(session, "tests")
    session.run("pytest", "-q", "-m", "examples", *session.posargs)


@nox.session(python=FOUND[:1] or None)
def pages(session: nox.Session) -> None:
    """Write the pages that are made of docstrings."""
    _install(session, "tests")
    session.run("python", "docs/generate.py")


@nox.session(python=FOUND[:1] or None)
def chaos(session: nox.Session) -> None:
    """Break databases, disks, networks, clocks and processes for minutes: `nox -s chaos -- --minutes 120`, or `-- kills`."""
    _install(session, "tests")
    if session.posargs[:1] == ["kills"]:
        session.run("pytest", "-q", "-s", "-m", "chaos", *session.posargs[1:])
    else:
        session.run("python", "tests/chaos", *session.posargs)


@nox.session(python=FOUND[:1] or None)
def soak(session: nox.Session) -> None:
    """Work at a steady rate and see whether anything grows: `nox -s soak -- --minutes 60`."""
    _install(session, "tests")
    session.run("python", "tests/soak", *session.posargs)


@nox.session(python=FOUND[:1] or None)
def properties(session: nox.Session) -> None:
    """Compare many random workflows with plain asyncio: `nox -s properties -- 2000`."""
    _install(session, "tests")
    examples = session.posargs[:1] or ["1000"]
    session.run("pytest", "-q", "tests/test_properties.py", *session.posargs[1:], env={"EXAMPLES": examples[0]})


@nox.session(python=FOUND[:1] or None)
def simulate(session: nox.Session) -> None:
    """Simulate workers and everything that can go wrong: `nox -s simulate -- --seeds 10000`, or `-- planted`."""
    _install(session, "tests")
    if session.posargs[:1] == ["planted"]:
        session.run("pytest", "-q", "-m", "planted", "tests/test_simulation.py", *session.posargs[1:])
    else:
        session.run("python", "tests/simulation", *(session.posargs or ["--seeds", "1000"]))


@nox.session(python=FOUND[:1] or None)
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads foreign bytes, each target for so long: `nox -s fuzz -- 300`, or `-- 300 codec`."""
    _install(session, "tests")
    # Not among the tests' own: there are wheels of it for CPython up to 3.13 on Linux only.
    session.install("atheris>=3")
    seconds, *targets = session.posargs or ["60"]
    for target in targets or ("codec", "values", "envelope", "config"):
        session.run("python", "tests/fuzz", target, seconds)


@nox.session(python=FOUND[:1] or None)
def constraints(session: nox.Session) -> None:
    """Resolve every dependency anew and write constraints.txt."""
    session.install("uv")
    files = [f"{package}/pyproject.toml" for package in PACKAGES]
    own = [f"--no-emit-package=durable-monty-{name}" for name in ("core", "local", "rq", "modal", "lambda", "otel")]
    session.run(
        "uv", "pip", "compile", "-q", "--universal", "--python-version", WANTED[0], "--all-extras", "--group", "dev",
        "--no-header", "--no-annotate", "--no-emit-index-url", *own, "-o", CONSTRAINTS, *files,
    )  # fmt: skip

"""Ours beside peers: `nox -s bench -- W1 W3 [--repeats N] [--quick] [--write FILE] [--results FILE]`.

The contestants of a workload take turns (A B C, A B C, ...), each run in a process and a new database of its own on one
PostgreSQL server with its own defaults (`fsync` on), or in a SQLite file; right before and right after each run a bare
commit of the same database is measured. Each run is kept in the results file at once, and what is there already is not run
again. A run that fails, or cannot be made here, makes a row that says why.

`counts` counts statements, transactions, syncs and bytes of one step exactly. `profiles` tells where the time of our own
runs goes. `claims` shows how the database answers a worker's queries beside ten million executions that have ended.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE.parents[1]), str(_HERE.parent), str(_HERE)]

from claims import claims  # noqa: E402
from counts import counts  # noqa: E402
from databases import Database, postgresql_database, sqlite_database  # noqa: E402
from plan import WORKLOADS, Case, cases  # noqa: E402
from profiles import profiles  # noqa: E402
from running import run_program  # noqa: E402
from tables import page, write  # noqa: E402

# Made once, whatever `--repeats` says.
_ONCE: dict[str, Callable[[Database, Database, argparse.Namespace], Any]] = {
    "W7": lambda postgresql, sqlite, chosen: _through_rq(sqlite, is_quick=chosen.quick),
    "counts": lambda postgresql, sqlite, chosen: counts(chosen.peers_python, is_quick=chosen.quick),
    "profiles": lambda postgresql, sqlite, chosen: profiles(postgresql, is_quick=chosen.quick),
    "claims": lambda postgresql, sqlite, chosen: claims(postgresql, chosen.executions),
}
# As random as what is compressed.
_STEP_TEXT = secrets.token_hex(1500)


def main() -> None:
    chosen = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    results = json.loads(chosen.results.read_text()) if chosen.results.exists() else {}
    with postgresql_database() as postgresql, sqlite_database() as sqlite:
        results["machine"] = f"{os.cpu_count()} processors; {postgresql.describe}; {sqlite.describe}"
        for workload in chosen.workloads:
            if workload in _ONCE:
                if workload not in results:
                    results[workload] = _ONCE[workload](postgresql, sqlite, chosen)
            else:
                _run_all(workload, {"postgresql": postgresql, "sqlite": sqlite}, results, chosen)
            _keep(chosen.results, results)
    text = page(results, chosen.workloads, is_quick=chosen.quick)
    print(text)
    if chosen.write is not None:
        write(chosen.write, text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, in turns")
    parser.add_argument("--quick", action="store_true", help="small numbers: to see that it works")
    parser.add_argument("--executions", type=int, default=10_000_000, help="for `claims`: how many that have ended")
    parser.add_argument("--peers-python", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--results", type=Path, default=Path("bench-results.json"), help="where runs are kept")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page as well")
    return parser.parse_args()


def _run_all(
    workload: str, databases: dict[str, Database], results: dict[str, Any], chosen: argparse.Namespace
) -> None:
    runs = results.setdefault("runs", {})
    for repeat in range(chosen.repeats):
        for case in cases(workload, is_quick=chosen.quick):
            kept = runs.setdefault(case.key, [])
            # What cannot be made is not tried again and again.
            if len(kept) > repeat or repeat >= case.repeats or any("failed" in run for run in kept):
                continue
            kept.append(_run(case, databases[case.database], chosen.peers_python))
            _keep(chosen.results, results)
            print(case.key, kept[-1], flush=True)


def _run(case: Case, database: Database, peers_python: str) -> dict[str, Any]:
    """One run, between two looks at what a commit takes."""
    url = database.new_url()
    before = _commit_seconds(database, case)
    with tempfile.TemporaryDirectory(prefix="durable-monty-bench-") as folder:
        empty = database.used_bytes(url)
        run = run_program(case, url, Path(folder), peers_python)
        if case.workload == "W5" and "failed" not in run:
            # The schema itself is among it: some tens of bytes each of ten thousand.
            run["bytes_each"] = (database.used_bytes(url) - empty) / case.n
    run["commit_seconds"] = (before + _commit_seconds(database, case)) / 2
    return run


def _commit_seconds(database: Database, case: Case) -> float:
    """A bare commit of one row with as much in it as a step writes."""
    return database.commit_seconds(database.new_url(), text=_STEP_TEXT, synchronous=case.synchronous)


def _through_rq(database: Database, *, is_quick: bool) -> list[dict[str, Any]]:
    from rq_section import rq

    return [{"what": item.what, "value": item.value, "unit": item.unit} for item in rq(database, is_quick)]


def _keep(path: Path, results: dict[str, Any]) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

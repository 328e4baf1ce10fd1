"""Ours beside peers: `nox -s bench -- W1 W3 W6 [--repeats N] [--count N] [--write FILE] [--results FILE]`.

Contestants take turns (A B C, A B C), each run in a process and a database of its own on one PostgreSQL server with
`fsync` on, a bare commit measured before and after. Each run is written to the results file at once; a run that is
there already is not repeated. A failed one makes a row that says why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from databases import Database, postgresql_database  # noqa: E402

_HERE = Path(__file__).parent
_COUNTS = {"W1": 1000, "W3": 1000, "W6": 200}
_GOALS = {
    "W1": ("chain, a step", "<= 0.6 x Absurd"),
    "W3": ("executions of 3 steps, a step", "<= 0.3 x Absurd, <= 0.1 x DBOS"),
    "W6": ("1 step, start to result, p50", "<= 0.35 x DBOS"),
}
_CONTESTANTS = ("ours", "dbos", "absurd")
_BEGIN, _END = "<!-- peers: begin -->", "<!-- peers: end -->"


def main() -> None:
    chosen = _arguments()
    runs = json.loads(chosen.results.read_text()) if chosen.results.exists() else {}
    with postgresql_database() as database:
        for workload in chosen.workloads:
            count = chosen.count or _COUNTS[workload]
            for repeat in range(chosen.repeats):
                for who in _CONTESTANTS:
                    key = f"{workload} {count} {repeat} {who}"
                    if "seconds" not in runs.get(key, {}):
                        runs[key] = _run(database, who, workload, count, chosen)
                        chosen.results.write_text(json.dumps(runs, indent=1) + "\n")
                        print(key, runs[key], flush=True)
        lines = [database.describe, f"; {chosen.repeats} repeats.\n\n"]
    table = "".join(lines) + _table(runs, chosen)
    print(table)
    if chosen.write is not None:
        _write(chosen.write, table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --")
    parser.add_argument("workloads", nargs="+", choices=_COUNTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--count", type=int, help="instead of each workload's own")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for one run")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--results", type=Path, default=Path("bench-results.json"))
    parser.add_argument("--write", type=Path)
    return parser.parse_args()


def _run(database: Database, who: str, workload: str, count: int, chosen: argparse.Namespace) -> dict[str, object]:
    url = database.new_url()
    before = database.commit_seconds(url)
    python = sys.executable if who == "ours" else chosen.peers_python
    command = [python, str(_HERE / f"run_{who}.py"), workload, url, str(count)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=chosen.timeout, env=dict(os.environ))
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {chosen.timeout:.0f} s"}
    if ended.returncode != 0 or not ended.stdout.strip():
        return {"failed": (ended.stderr.strip().splitlines() or ["it said nothing"])[-1][:150]}
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    return {**found, "commit": (before + database.commit_seconds(url)) / 2}


def _table(runs: dict[str, dict[str, object]], chosen: argparse.Namespace) -> str:
    lines = ["| workload | who | ms, median (min-max) | commits | ours / it | goal |", "|---|---|---|---|---|---|"]
    for workload in chosen.workloads:
        count = chosen.count or _COUNTS[workload]
        found = {
            who: [runs[f"{workload} {count} {repeat} {who}"] for repeat in range(chosen.repeats)]
            for who in _CONTESTANTS
        }
        ours = [run["seconds"] for run in found["ours"] if "seconds" in run]
        for who, all_runs in found.items():
            lines.append(_row(workload, count, who, all_runs, ours))
    return "\n".join(lines) + "\n"


def _row(workload: str, count: int, who: str, all_runs: list[dict], ours: list[float]) -> str:
    what, goal = _GOALS[workload]
    good = [run for run in all_runs if "seconds" in run]
    failed = [run["failed"] for run in all_runs if "failed" in run]
    if not good:
        return f"| {workload} {what} ({count:,}) | {who} | failed: {failed[0].replace('|', '/')} | | | |"
    times = [1000 * run["seconds"] for run in good]
    commits = statistics.median(run["seconds"] / run["commit"] for run in good)
    ratio = f"{1000 * statistics.median(ours) / statistics.median(times):.2f}" if ours else ""
    spread = f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})" + (
        f", {len(failed)} of {len(all_runs)} failed" if failed else ""
    )
    return (
        f"| {workload} {what} ({count:,}) | {who} | {spread} | {commits:.1f} | {ratio} | "
        f"{goal if who == 'ours' else ''} |"
    )


def _write(page: Path, table: str) -> None:
    head, _, rest = page.read_text().partition(_BEGIN)
    if not rest:
        raise RuntimeError(f"writing the table to {page}: it has no line {_BEGIN!r}; add it and {_END!r}")
    page.write_text(f"{head}{_BEGIN}\n{table}{_END}{rest.partition(_END)[2]}")


main()

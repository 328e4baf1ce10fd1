"""The tables of what was measured, and their place in a page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from plan import ABSURD, DBOS, FLOOR, OURS, PINNED, TITLES, Case, cases

_BEGIN, _END = "<!-- bench: begin -->", "<!-- bench: end -->"
_PACKAGES = ("durable-monty-core", "pydantic-monty", "SQLAlchemy", "psycopg", "rq")
_GOALS = {
    "W1": "PostgreSQL: at most 0.6 x Absurd. SQLite FULL: at most 1.6 commits; NORMAL: 0.15 ms when pinned. Flat to 100,000.",
    "W2": "At most 0.05 x DBOS, 1 + N/100 commits; 100,000 calls in less than 1 GB.",
    "W3": "At most 0.3 x Absurd and 0.1 x DBOS; two workers at least 1.6 times as fast as one.",
    "W4": "The same at any N; at most 60 ms after imports, 400 ms from the start of the process.",
    "W5": "10,000 in at most 6 s, 1.5 kB each; no memory for a waiter.",
    "W6": "At most 0.35 x DBOS.",
}
_PER_UNIT = {"W1", "W2"}


def page(results: dict[str, Any], workloads: list[str], *, is_quick: bool) -> str:
    """Every table, as Markdown."""
    parts = [f"{results['machine']}; " + ", ".join(f"{name} {version(name)}" for name in _PACKAGES) + "."]
    for workload in workloads:
        if workload == "W7":
            parts.append(_through_rq(results["W7"]))
        elif workload in ("counts", "profiles", "claims"):
            parts.append(results[workload])
        else:
            parts.append("\n".join(_table(workload, results["runs"], is_quick=is_quick)))
    return "\n\n".join(parts) + "\n"


def write(path: Path, text: str) -> None:
    """Put the tables between the two marks of a page."""
    head, mark, rest = path.read_text().partition(_BEGIN)
    if not mark or _END not in rest:
        raise SystemExit(f"writing the tables to {path}: it has no lines {_BEGIN!r} and {_END!r}; add them")
    path.write_text(f"{head}{_BEGIN}\n\n{text}\n{_END}{rest.partition(_END)[2]}")


def _table(workload: str, runs: dict[str, list[dict[str, Any]]], *, is_quick: bool) -> Iterator[str]:
    yield f"### {TITLES[workload]}"
    yield ""
    yield f"Goal: {_GOALS[workload]}"
    yield ""
    yield "| who | database | N | workers | median | from | to | commits | x DBOS | x Absurd | x floor | besides |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
    planned = cases(workload, is_quick=is_quick)
    for case in planned:
        found = runs.get(case.key, [])
        good = [run for run in found if "failed" not in run]
        start = f"| {case.who} | {case.store} | {case.n:,} | {case.workers} |"
        if not good:
            yield f"{start} {found[0]['failed'] if found else 'not run'} | | | | | | | |"
            continue
        times = [_milliseconds(case, run) for run in good]
        commits = statistics.median(time / run["commit_seconds"] / 1000 for time, run in zip(times, good, strict=True))
        ratios = [_ratio(case, planned, runs, peer) for peer in (DBOS, ABSURD, FLOOR)]
        figures = [_figure(value) for value in (statistics.median(times), min(times), max(times))]
        yield f"{start} {' | '.join(figures)} | {_figure(commits)} | {' | '.join(ratios)} | {_besides(good)} |"


def _milliseconds(case: Case, run: dict[str, Any]) -> float:
    seconds: float = run["p50"] if case.workload == "W6" else run["seconds"]
    return 1000 * (seconds / case.n if case.workload in _PER_UNIT else seconds)


def _ratio(case: Case, planned: list[Case], runs: dict[str, list[dict[str, Any]]], peer: str) -> str:
    """Ours to a peer that ran under the same conditions."""
    if case.who not in (OURS, PINNED):
        return ""
    wanted = f"{peer}, pinned" if case.is_pinned else peer
    same = [
        other
        for other in planned
        if (other.who, other.database, other.n, other.synchronous) == (wanted, case.database, case.n, case.synchronous)
        and other.workers in (case.workers, 1)
    ]
    # With as many workers, where the peer ran with so many.
    same.sort(key=lambda other: other.workers != case.workers)
    for other in same:
        theirs = [_milliseconds(other, run) for run in runs.get(other.key, []) if "failed" not in run]
        ours = [_milliseconds(case, run) for run in runs[case.key] if "failed" not in run]
        if theirs:
            return f"{statistics.median(ours) / statistics.median(theirs):.2f}"
    return ""


def _besides(runs: list[dict[str, Any]]) -> str:
    """What else a run told, medians."""
    names = {
        "start_seconds": ("starting them all", 1.0, "s"),
        "from_start_seconds": ("from the start of the process", 1e3, "ms"),
        "p95": ("p95", 1e3, "ms"),
        "peak_bytes": ("peak memory", 1e-6, "MB"),
        "worker_bytes": ("memory of the worker", 1e-6, "MB"),
        "bytes_each": ("database, each", 1e-3, "kB"),
    }
    return ", ".join(
        f"{what} {_figure(factor * statistics.median(run[name] for run in runs))} {unit}"
        for name, (what, factor, unit) in names.items()
        if all(name in run for run in runs)
    )


def _through_rq(figures: list[dict[str, Any]]) -> str:
    rows = "\n".join(f"| {item['what']} | {_figure(item['value'])} {item['unit']} |" for item in figures)
    return f"### {TITLES['W7']}\n\nGoal: at most 1.15 x RQ alone.\n\n| what | median |\n|---|---:|\n{rows}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

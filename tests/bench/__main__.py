"""The benchmark: `nox -s bench`, or `python tests/bench [--quick] [--database NAME] [--only SECTION] [--json FILE]`.

How it is measured. Everything runs as a user runs it: the default configuration, the local executor with its threads,
databases that sync every commit (SQLite with `synchronous=FULL`, a PostgreSQL server of its own with `fsync` on). Host
functions do next to nothing, so that the figures are the engine's own time and its database's. Times run from the
worker's start to its end, the sandbox's start included, so short runs look worse per step than long ones.

Right before each run, and after those that may be long, the bare commit of the same database is measured: one small row
in a transaction of its own, through the same driver on one connection, seven rounds of 40, the median of the rounds. It
stands beside each figure, and the figure is given as so many of it: machine and disk may be noisy, and a disk's mood may
change within seconds, so that the ratio is steadier than the time, but not steady. Figures are medians of 3 to 7 runs,
each in a new database; the chain of 10,000 runs once. Latencies are quantiles of 200 executions. Each resume works on a
copy of one history, in a fresh process whose imports have been compiled before; its phases are told apart, since only the
last one could depend on the history.

It is a benchmark, not a test: nothing depends on its figures. A wrong result stops it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

from databases import postgresql_database, sqlite_database
from figures import Figure
from sections import SECTIONS

DATABASES = {"sqlite": sqlite_database, "postgresql": postgresql_database}
PACKAGES = ("durable-monty-core", "pydantic-monty", "SQLAlchemy", "psycopg")


def main() -> None:
    chosen = _arguments()
    # Ended from outside, it takes its server and folders with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    began_at = time.monotonic()
    sections = chosen.only or [name for name, section in SECTIONS.items() if section.is_quick or not chosen.quick]
    report = {"machine": _machine(), "databases": {}}
    print("\n".join(f"{name + ':':<12} {value}" for name, value in report["machine"].items()))
    for name in DATABASES if chosen.database == "both" else [chosen.database]:
        report["databases"][name] = _measure(name, sections, is_quick=chosen.quick)
    print(f"\n{time.monotonic() - began_at:.0f} s in all")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small numbers and few repetitions, within a minute")
    parser.add_argument("--database", choices=[*DATABASES, "both"], default="both", help="which one; both by default")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="only this section; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and figures to this file as well")
    return parser.parse_args()


def _machine() -> dict[str, str]:
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processors": str(os.cpu_count()),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def _measure(name: str, sections: list[str], *, is_quick: bool) -> dict[str, object]:
    """Run the sections on one database and print figures as they come."""
    figures = []
    with DATABASES[name]() as database:
        print(f"\n{database.describe}")
        print(f"  {'':<58}{'value':>14}       {'bare commit':>12}  {'= commits':>10}")
        for section in sections:
            for figure in SECTIONS[section].measure(database, is_quick):
                print(_line(figure), flush=True)
                figures.append({"section": section, **asdict(figure)})
        return {"describe": database.describe, "figures": figures}


def _line(figure: Figure) -> str:
    line = f"  {figure.what:<58}{figure.value:>14,.3f} {figure.unit:<6}"
    if figure.commit_seconds is not None and figure.commits is not None:
        line += f"{1000 * figure.commit_seconds:>9,.3f} ms  {figure.commits:>10,.2f}"
    return line.rstrip()


if __name__ == "__main__":
    main()

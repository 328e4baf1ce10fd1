"""The benchmark: `nox -s bench`, or `python tests/bench [--quick] [--database NAME] [--only SECTION]`.

Everything runs as a user runs it: the default configuration, the local executor with its threads, a database that syncs
every commit. Before each measurement the bare commit of the same database is measured, and each figure stands beside it
as so many commits: the machine and its disk may be noisy, the ratio is less so. Figures are medians where a run is short
enough to be repeated. It is a benchmark, not a test: nothing depends on its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

from databases import commit_seconds, postgresql_database, sqlite_database
from figures import Figure
from sections import SECTIONS

DATABASES = {"sqlite": sqlite_database, "postgresql": postgresql_database}


def main() -> None:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller numbers, about a minute")
    parser.add_argument("--database", choices=DATABASES, action="append", help="only this one; may be repeated")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="only this section; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    chosen = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} processors, pydantic-monty {version('pydantic-monty')}"
    )
    began_at = time.monotonic()
    figures: dict[str, list[Figure]] = {}
    for name in chosen.database or DATABASES:
        with DATABASES[name]() as database:
            print(f"\n{database.describe}")
            bare = commit_seconds(database.new_url())
            show(Figure("bare commit of one row with 3 kB", 1000 * bare, "ms", 1.0))
            for section in chosen.only or SECTIONS:
                for figure in SECTIONS[section](database, chosen.quick):
                    show(figure)
                    figures.setdefault(name, []).append(figure)
    print(f"\n{time.monotonic() - began_at:.0f} s")
    if chosen.json is not None:
        rows = {name: [vars(figure) for figure in found] for name, found in figures.items()}
        chosen.json.write_text(json.dumps(rows, indent=2))


def show(figure: Figure) -> None:
    commits = f"= {figure.commits:6.2f} commits" if figure.commits is not None else ""
    print(f"  {figure.what:<55} {figure.value:>12,.3f} {figure.unit:<6}{commits}".rstrip(), flush=True)


if __name__ == "__main__":
    main()

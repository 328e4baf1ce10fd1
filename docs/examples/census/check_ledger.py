"""Proves from the ledger that no file that was finished before a kill was parsed again.

    python check_ledger.py BEFORE.json BEFORE-LEDGER [LEDGER]

BEFORE.json is what `durable-monty show ID --all --json` printed between the kill and the next run, and BEFORE-LEDGER
a copy of the ledger of that time.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def main(calls: str, ledger_before: str, ledger: str = "census-ledger.txt") -> int:
    finished = {
        call["arguments"][0][0]
        for call in json.loads(Path(calls).read_text())["calls"]
        if call["function"] == "census.measure" and call["status"] == "completed"
    }
    before, after = (Counter(Path(name).read_text().splitlines()) for name in (ledger_before, ledger))
    again = [path for path in finished if after[path] != before[path]]
    twice = [path for path in after if after[path] > 1]
    print(f"{len(finished)} files were finished before the kill; {len(again)} of them were parsed again")
    print(f"{len(after)} files in the ledger; {len(twice)} were being parsed at a kill and were parsed twice")
    return 1 if again or not finished <= set(before) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

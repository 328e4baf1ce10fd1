"""Proves from the ledger that no file that was finished before a kill was parsed again.

    python check_ledger.py BEFORE.json [LEDGER]

BEFORE.json is what `durable-monty show census --all --json` printed between the kill and the second run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def main(before: str, ledger: str = "census-ledger.txt") -> int:
    calls = json.loads(Path(before).read_text())["calls"]
    finished = {
        call["arguments"][0][0]
        for call in calls
        if call["function"] == "census.measure" and call["status"] == "completed"
    }
    parsed = Counter(Path(ledger).read_text().splitlines())
    again = [path for path in finished if parsed[path] != 1]
    twice = [path for path, times in parsed.items() if times > 1]
    print(f"{len(finished)} files were finished before the kill; {len(again)} of them were parsed again")
    print(f"{len(parsed)} files in the ledger; {len(twice)} were being parsed at the kill and were parsed twice")
    return 1 if again else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A fresh process that goes on with an execution: `resumed.py URL`.

Prints when its imports were done and when its service was open, in seconds since the epoch.
"""

from __future__ import annotations

import sys
import time

from opened import opened

from durable_monty import Worker

imported_at = time.time()
with opened(sys.argv[1]) as service:
    print(imported_at, time.time(), flush=True)
    Worker(service).run(until_complete=True)

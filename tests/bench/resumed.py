"""A fresh process that goes on with an execution: `resumed.py URL`; prints when its imports were done."""

from __future__ import annotations

import sys
import time

from durable_monty import OrchestratorService, Worker, init_db
from durable_monty.config import Config

print(time.time(), flush=True)
Worker(OrchestratorService(init_db(sys.argv[1]), Config())).run(until_complete=True)

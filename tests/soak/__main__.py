"""`python tests/soak [--minutes 60] [--rate 10] [--database both] [--json FILE]`: steady work, and whether anything grows.

Two `durable-monty worker` processes on each database get executions of every shape at a steady rate, and delete those that
ended more than a minute and a half ago. Each minute memory, open files and threads of the workers with their sandboxes are
read, the size of the database, and how long executions took. Ends with 1 if any of the first four grows, if a worker has
ended, or if a result was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config
from soak.sampling import HEADER, Sample, resources_of, verdicts
from support import servers
from support.chaos_workflows import planned
from support.supervised import Supervised

# What has ended is there for longer than from one sample to the next.
_CONFIGURATION = """
[store]
url = "{url}"

[retention]
delete_after_seconds = 90
interval_seconds = 5
"""
_FUNCTIONS = Path(__file__).parent.parent
_WORKERS = 2
_MAX_EXECUTIONS = 10_000


class Soak:
    """One database and its workers."""

    def __init__(self, name: str, url: str, folder: Path, size_bytes: Callable[[OrchestratorService], int]) -> None:
        self.name = name
        self.samples: list[Sample] = []
        self.wrong: list[str] = []
        self.started = 0
        self._size_bytes = size_bytes
        self._service = OrchestratorService(init_db(url), Config())
        self._began_at = self._sampled_at = self._service.runtime.clock()
        folder.mkdir()
        config = folder / "durable-monty.toml"
        config.write_text(_CONFIGURATION.format(url=url))
        command = [str(Path(sys.executable).parent / "durable-monty"), "worker", "--config", str(config)]
        environment = {**os.environ, "PYTHONPATH": str(_FUNCTIONS), "LEDGER": os.devnull}
        self._workers = [
            Supervised(f"worker {number}", command, environment, folder / f"worker-{number}.log")
            for number in range(_WORKERS)
        ]

    def run(self, seconds: float, every_seconds: float, rate: float, is_over: threading.Event) -> None:
        """Start executions at the rate, and look now and then."""
        for worker in self._workers:
            worker.ensure_running()
        began_at = time.monotonic()
        sample_at = began_at + every_seconds
        while (now := time.monotonic()) < began_at + seconds and not is_over.is_set():
            plan = planned(self.started)
            self._service.start_execution(plan.workflow, inputs=plan.inputs, execution_id=plan.execution_id)
            self.started += 1
            if now >= sample_at:
                sample_at += every_seconds
                self._sample()
            # Not later for one that took long: the rate is what counts.
            is_over.wait(max(began_at + self.started / rate - time.monotonic(), 0.0))
        self._sample()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.kill(children=True)
        self._service.close()

    def _sample(self) -> None:
        pids = [worker.pid for worker in self._workers]
        if None in pids:
            self.wrong.append("a worker has ended")
        now = self._service.runtime.clock()
        ended = [
            row
            for row in self._service.list_executions(limit=_MAX_EXECUTIONS)
            if row["ended_at"] is not None and self._sampled_at <= row["ended_at"] < now
        ]
        for row in ended:
            plan = planned(int(row["execution_id"].partition("-")[0]))
            right = plan.expected in (row["error"] or "") if plan.fails else row["output"] == plan.expected
            if not right:
                self.wrong.append(f"{row['execution_id']} is {row['status']}: {row['output'] or row['error']!r}")
        latencies = sorted(1000 * (row["ended_at"] - row["created_at"]) for row in ended) or [0.0]
        sample = Sample(
            (now - self._began_at) / 60,
            *resources_of([pid for pid in pids if pid is not None]),
            self._size_bytes(self._service),
            len(ended),
            statistics.median(latencies),
            latencies[int(0.95 * (len(latencies) - 1))],
        )
        self._sampled_at = now
        self.samples.append(sample)
        print(f"{self.name:>10} {sample.row()}", flush=True)


def main() -> int:
    chosen = _arguments()
    is_over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_over.set())
    signal.signal(signal.SIGINT, lambda *_: is_over.set())
    folder = Path(tempfile.mkdtemp(prefix="durable-monty-soak-"))
    every_seconds = min(60.0, chosen.minutes * 6)
    print(f"{'':>10} {HEADER}")
    with ExitStack() as stack:
        soaks = []
        if chosen.database in ("both", "sqlite"):
            soaks.append(_sqlite(folder))
        if chosen.database in ("both", "postgresql"):
            soaks.append(_postgresql(folder, stack.enter_context(servers.postgresql(is_durable=True))))
        for soak in soaks:
            stack.callback(soak.close)
        threads = [
            threading.Thread(target=soak.run, args=(chosen.minutes * 60, every_seconds, chosen.rate, is_over))
            for soak in soaks
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    is_good = True
    report = {}
    for soak in soaks:
        found = verdicts(soak.samples)
        print("\n".join([f"{soak.name}: {soak.started} executions started", *map(str, found), *soak.wrong]))
        is_good = is_good and not soak.wrong and all(verdict.is_flat is not False for verdict in found)
        report[soak.name] = {
            "rate": chosen.rate,
            "started": soak.started,
            "samples": [{name: getattr(sample, name) for name in Sample.__slots__} for sample in soak.samples],
            "verdicts": [verdict.to_json() for verdict in found],
            "wrong": soak.wrong,
        }
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    return 0 if is_good else 1


def _sqlite(folder: Path) -> Soak:
    file = folder / "soak.db"

    def size_bytes(service: OrchestratorService) -> int:
        return sum(part.stat().st_size for part in folder.glob("soak.db*"))

    return Soak("sqlite", f"sqlite:///{file}", folder / "sqlite", size_bytes)


def _postgresql(folder: Path, server_url: str) -> Soak:
    import psycopg

    url = servers.new_database(server_url, "soak")

    def size_bytes(service: OrchestratorService) -> int:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            assert row is not None
            return int(row[0])

    return Soak("postgresql", url, folder / "postgresql", size_bytes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/soak", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; 60 by default")
    parser.add_argument("--rate", type=float, default=10.0, help="executions a second on each database")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--json", type=Path, help="write samples and verdicts to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""Two installations as users have them: workers on several hosts with PostgreSQL and RQ; workers of one host on SQLite."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chaos.figures import Figures
from chaos.places import OtherHost, SmallDisk
from support import servers
from support.proxy import Proxy
from support.supervised import Supervised

LEASE_SECONDS = 3
_TESTS = Path(__file__).parent.parent
_SCRIPTS = Path(sys.executable).parent
_SHIFTED = _TESTS / "support" / "shifted_clock.py"
_QUEUE = "chaos"
_PG_DISK_BYTES, _SQLITE_DISK_BYTES = 640 << 20, 96 << 20
_WITH_RQ = """
executor = "rq"

[store]
url = "{database_url}"

[worker]
lease_seconds = {lease_seconds}

[executors.rq]
redis_url = "{redis_url}"
queue = "{queue}"
lost_after_seconds = 6
sweep_interval_seconds = 1
claim_after_seconds = 3
"""
_LOCAL = """
[store]
url = "{database_url}"

[worker]
lease_seconds = {lease_seconds}
stop_grace_seconds = 1
"""


class Installation:
    """Supervised processes that share a database.

    Attributes:
        url: The database, as seen from here.
        workers: The processes that advance executions.
        rq: The processes that run functions, if those are others.
    """

    def __init__(self, folder: Path, figures: Figures, url: str) -> None:
        self.folder = folder
        self.figures = figures
        self.random = random.Random(figures.seed)
        self.url = url
        self.ledger = folder / "ledger.txt"
        self.ledger.touch()
        self.workers: list[Supervised] = []
        self.rq: list[Supervised] = []

    def add_worker(self, name: str, configuration: str, *, prefix: Sequence[str] = ()) -> None:
        """A `durable-monty worker` with a configuration of its own."""
        config = self.folder / f"{name}.toml"
        config.write_text(configuration)
        command = [str(_SCRIPTS / "durable-monty"), "worker", "--config", str(config)]
        self.workers.append(self._process(name, [*prefix, *command]))

    def add_rq(self, name: str, redis_url: str, *options: str, prefix: Sequence[str] = ()) -> None:
        """A stock `rq worker`."""
        command = [str(_SCRIPTS / "rq"), "worker", _QUEUE, "--url", redis_url, "--quiet", *options]
        self.rq.append(self._process(name, [*prefix, *command]))

    def supervise(self) -> None:
        """Start what has ended."""
        for process in (*self.workers, *self.rq):
            process.ensure_running()

    def kill(self, process: Supervised, *, how: str = "process") -> None:
        """SIGKILL a process, its `process tree`, or only its `work horse`."""
        if process.kill(itself=how != "work horse", children=how != "process"):
            self.figures.kills[process.name if process in self.workers else f"{process.name} ({how})"] += 1

    def stop(self) -> None:
        """End everything."""
        for process in (*self.workers, *self.rq):
            process.kill(children=True)

    def shifted(self, program: Sequence[str], seconds: float) -> list[str]:
        """The command of a process, with its clock off by so much."""
        script = next(number for number, part in enumerate(program) if Path(part).parent == _SCRIPTS)
        return [*program[:script], sys.executable, str(_SHIFTED), str(seconds), *program[script:]]

    def _process(self, name: str, command: list[str]) -> Supervised:
        environment = {**os.environ, "PYTHONPATH": str(_TESTS), "LEDGER": str(self.ledger)}
        return Supervised(name, command, environment, self.folder / f"{name}.log")


class WithRQ(Installation):
    """PostgreSQL and Valkey; a worker beside them, one behind a proxy that breaks connections, one on another host.

    Attributes:
        disk: What the database is on; None without `places`.
        host: The other host; None without `places`.
        proxy: What the second worker reaches the database through.
    """

    def __init__(
        self,
        folder: Path,
        figures: Figures,
        postgresql: servers.PostgreSQL | str,
        valkey: servers.Valkey,
        disk: SmallDisk | None = None,
        host: OtherHost | None = None,
    ) -> None:
        super().__init__(folder, figures, postgresql if isinstance(postgresql, str) else postgresql.url)
        self.postgresql = postgresql if isinstance(postgresql, servers.PostgreSQL) else None
        self.valkey = valkey
        self.disk = disk
        self.host = host
        server = self.url.partition("@")[2].partition("/")[0]
        port = int(server.partition(":")[2])
        self.proxy = Proxy(port)
        self.add_worker("worker 1", self._configuration(self.url, valkey.url))
        through = self.url.replace(server, f"127.0.0.1:{self.proxy.port}")
        self.add_worker("worker 2", self._configuration(through, valkey.url))
        self.add_rq("rq 1", valkey.url)
        if host is None:
            self.add_rq("rq 2", valkey.url)
            return
        redis_url = f"redis://{host.reach(valkey.port)}/0"
        remote = self._configuration(self.url.replace(server, host.reach(port)), redis_url)
        self.add_worker("worker 3", remote, prefix=host.prefix)
        # One that runs functions in its own process.
        self.add_rq("rq 2", redis_url, "-w", "rq.SimpleWorker", prefix=host.prefix)

    def stop(self) -> None:
        """End everything."""
        super().stop()
        self.figures.dropped_connections += self.proxy.dropped
        self.figures.lost_answers += self.proxy.lost_answers
        self.proxy.close()

    def _configuration(self, database_url: str, redis_url: str) -> str:
        return _WITH_RQ.format(
            database_url=database_url, redis_url=redis_url, queue=_QUEUE, lease_seconds=LEASE_SECONDS
        )


class Local(Installation):
    """SQLite, and two workers that run functions themselves.

    Attributes:
        disk: What the database is on.
        database: Its file.
    """

    def __init__(self, folder: Path, figures: Figures, database: Path, disk: SmallDisk) -> None:
        super().__init__(folder, figures, f"sqlite:///{database}")
        self.database = database
        self.disk = disk
        for number in (1, 2):
            self.add_worker(f"worker {number}", _LOCAL.format(database_url=self.url, lease_seconds=LEASE_SECONDS))


@contextmanager
def with_rq(folder: Path, figures: Figures, *, keeps_data: bool) -> Iterator[WithRQ]:
    """The first installation, with servers of its own and a host to be cut off."""
    folder.mkdir()
    disk = SmallDisk(folder / "disk", _PG_DISK_BYTES)
    host = OtherHost()
    options = ("max_wal_size=64MB", "min_wal_size=32MB", "shared_buffers=32MB")
    server = servers.PostgreSQL(disk.folder / "pg", is_durable=True, options=options)
    try:
        server.create()
        server.start()
        with servers.valkey(keeps_data=keeps_data) as valkey:
            yield WithRQ(folder, figures, server, valkey, disk, host)
    finally:
        if server.is_running():
            server.stop()
        server.delete()
        host.close()
        disk.close()


@contextmanager
def local(folder: Path, figures: Figures) -> Iterator[Local]:
    """The second installation, with a disk of its own."""
    folder.mkdir()
    disk = SmallDisk(folder / "disk", _SQLITE_DISK_BYTES)
    try:
        yield Local(folder, figures, disk.folder / "chaos.db", disk)
    finally:
        disk.close()


def new_folder() -> Path:
    """A folder for everything of a run."""
    return Path(tempfile.mkdtemp(prefix="durable-monty-chaos-"))

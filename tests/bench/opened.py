"""A service as it is measured."""

from __future__ import annotations

from durable_monty import OrchestratorService, init_db
from durable_monty.config import Config


def opened(url: str) -> OrchestratorService:
    """A service with the default configuration, whatever files and variables the machine has; SQLite syncs every commit."""
    return OrchestratorService(init_db(url, synchronous="FULL"), Config())

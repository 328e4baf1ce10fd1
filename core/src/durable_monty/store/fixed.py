"""Statements of the hot path: plain SQL that never changes, run on the driver's own connection.

SQLAlchemy works out anew at each use which statement it has before it, which takes longer than the database does. And
what is constant is written out: a partial index is of no use to a statement that gets the index's condition as a
parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

THESE = "({SELECT json_array_elements_text(:ids::json)|SELECT value FROM json_each(:ids)})"
"""The texts of the parameter `ids`, which is a JSON array: any number of them in one statement that never changes."""

MAY_CLAIM = """(EXISTS (SELECT 1 FROM workers WHERE id = :worker AND lease_until >= 0 {FOR SHARE})
    OR NOT EXISTS (SELECT 1 FROM workers WHERE id = :worker))"""
"""Not while others take `:worker` for dead: if it died now, nobody would look for what it has claimed since."""

_PARAMETER = re.compile(r"(?<![:\w]):(\w+)")
_DIFFERS = re.compile(r"\{([^|}]*)\|?([^}]*)\}")


class Fixed:
    """A statement with `:named` parameters; of what stands in braces, the part behind a bar is for SQLite."""

    def __init__(self, sql: str) -> None:
        text = " ".join(sql.split())
        self._sqlite = _DIFFERS.sub(r"\2", text)
        self._postgresql = _PARAMETER.sub(r"%(\1)s", _DIFFERS.sub(r"\1", text))

    def text(self, connection: Connection) -> str:
        """The statement as this connection's driver takes it."""
        return self._postgresql if connection.dialect.name == "postgresql" else self._sqlite

    def mappings(self, connection: Connection, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Run it; returns its rows, by the names of their columns."""
        driver: Any = connection.connection.driver_connection
        cursor = driver.execute(self.text(connection), parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

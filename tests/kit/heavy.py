"""A plug-in whose import brings along what it must not."""

from __future__ import annotations

import sqlalchemy  # noqa: F401 - this is what is wrong with it

from kit.reference import Reference


class Heavy(Reference):
    pass

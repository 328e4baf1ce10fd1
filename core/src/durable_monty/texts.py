"""Ids, and what a database has no text for. Standard library only."""

from __future__ import annotations

import re

ID_RULE = "1 to 100 letters, digits, `-` and `_`, the first of them no `-`"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
# PostgreSQL has no text with a null character; UTF-8 has no surrogates.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def is_id(text: object) -> bool:
    """Whether an execution may have this id: it becomes part of job ids, which executors use in names and commands."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def is_storable(text: str) -> bool:
    """Whether every database can hold this text."""
    return _UNSTORABLE.search(text) is None


def storable(text: str) -> str:
    r"""The text for people, with what no database can hold written as an escape, such as `\x00`."""
    return _UNSTORABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)

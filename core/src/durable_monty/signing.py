"""Signing keys: one that signs, and earlier ones whose signatures are still accepted. Standard library only."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Mapping

KEY_VARIABLE = "DURABLE_MONTY_SIGNING_KEY"
PREVIOUS_VARIABLE = "DURABLE_MONTY_PREVIOUS_SIGNING_KEYS"


class SigningKey(bytes):
    """The current key, usable wherever its bytes are, with the keys that are accepted besides it.

    Args:
        current: Signs.
        previous: Accepted as well, while keys are being changed.
    """

    previous: tuple[bytes, ...]

    def __new__(cls, current: bytes, previous: Iterable[bytes] = ()) -> SigningKey:
        """The key; both parts are kept as they are given."""
        made = super().__new__(cls, current)
        made.previous = tuple(previous)
        return made

    def __repr__(self) -> str:
        # Keys must not get into logs and errors.
        return f"<signing key and {len(self.previous)} previous>"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[SigningKey], tuple[bytes, tuple[bytes, ...]]]:
        return SigningKey, (bytes(self), self.previous)


def sign(key: bytes, data: bytes) -> bytes:
    """The HMAC-SHA256 of `data` with the current key."""
    return hmac.digest(key, data, "sha256")


def is_signed(key: bytes, data: bytes, mac: bytes) -> bool:
    """Whether `mac` is that of `data` with the current key or an accepted one."""
    accepted = (key, *getattr(key, "previous", ()))
    return any(hmac.compare_digest(mac, hmac.digest(one, data, hashlib.sha256)) for one in accepted)


def from_environment(environ: Mapping[str, str] | None = None) -> SigningKey | None:
    """The key that the environment names, or None."""
    variables = os.environ if environ is None else environ
    current = variables.get(KEY_VARIABLE)
    if not current:
        return None
    return SigningKey(current.encode(), [key.encode() for key in split(variables.get(PREVIOUS_VARIABLE, ""))])


def split(text: str) -> list[str]:
    """The keys of a variable: separated by commas, or a JSON array, for keys that have commas."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list) and all(isinstance(key, str) for key in found):
            return [key for key in found if key]
    return [key.strip() for key in text.split(",") if key.strip()]

"""Ciphers: what encrypts inputs, arguments, outcomes and snapshots before they are stored.

A cipher is a plug-in: a class in the entry-point group `durable_monty.ciphers`, chosen by `[security] cipher`. It has a
class attribute `Settings`, a pydantic model for `[security.cipher_options]`, and is made with `cls(settings, keys)`. See
`Cipher` for what it does. `aes-siv` is part of this distribution and needs `cryptography`, which the extra `encryption`
brings.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from durable_monty.errors import ConfigError, PluginError

ENTRY_POINT_GROUP = "durable_monty.ciphers"
DEFAULT_CIPHER = "aes-siv"


class CannotDecrypt(Exception):
    """Raised by `Cipher.decrypt`; its text says why, without anything secret."""


class Cipher(Protocol):
    """What a cipher plug-in does. Used from several threads.

    Attributes:
        key_id: Names the key that encrypts now, letters and digits; empty: nothing is to be encrypted, only decrypted.
    """

    key_id: str

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        """The encrypted form of `data` with the current key.

        The same data in the same context should give the same result: the store compares outcomes to find out whether a
        commit of unknown fate has happened.

        Args:
            context: Where it is stored; not secret, but what is decrypted in another context must be refused.
        """

    def decrypt(self, data: bytes, context: bytes, key_id: str) -> bytes:
        """What `encrypt` was given.

        Raises:
            CannotDecrypt: The key is not known, the data was changed, or it belongs elsewhere.
        """


@dataclass(frozen=True, slots=True)
class EncryptionKeys:
    """The keys of the configuration, which a cipher may use, or leave for those of a key service.

    Attributes:
        current: Encrypts; None: nothing is encrypted.
        previous: Decrypt only.
    """

    current: bytes | None = field(default=None, repr=False)
    previous: tuple[bytes, ...] = field(default=(), repr=False)


class AesSiv:
    """AES-256 in SIV mode (RFC 5297).

    It is authenticated, binds what it encrypts to its place, has no nonce that could ever be used twice, and gives the
    same result for the same value in the same place.
    """

    class Settings(BaseModel):
        """It has none."""

        model_config = ConfigDict(extra="forbid")

    def __init__(self, settings: Settings, keys: EncryptionKeys) -> None:
        del settings
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV
        except ImportError as error:
            raise ConfigError(
                "[security] encryption_key: the cipher 'aes-siv' needs the package cryptography, which is not installed; "
                "run `pip install 'durable-monty-core[encryption]'`"
            ) from error
        self._wrong: type[Exception] = InvalidTag
        every = [key for key in (keys.current, *keys.previous) if key is not None]
        self._by_id = {_key_id(key): AESSIV(_derived(key)) for key in every}
        self.key_id = "" if keys.current is None else _key_id(keys.current)

    def __repr__(self) -> str:
        return f"<aes-siv with keys {', '.join(self._by_id)}>"

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        """See `Cipher`."""
        return self._by_id[self.key_id].encrypt(data, [context])

    def decrypt(self, data: bytes, context: bytes, key_id: str) -> bytes:
        """See `Cipher`."""
        key = self._by_id.get(key_id)
        if key is None:
            known = ", ".join(self._by_id) or "none"
            raise CannotDecrypt(
                f"it is encrypted with the key {key_id}, which is not configured here (known: {known}); add that key to "
                "[security] previous_encryption_keys"
            )
        try:
            return key.decrypt(data, [context])
        except (self._wrong, ValueError) as error:
            raise CannotDecrypt(
                "it was changed in the database, or moved there from another place; restore it from a backup"
            ) from error


def key_id(key: str) -> str:
    """The name under which `aes-siv` stores what this key has encrypted; says nothing about the key."""
    return _key_id(key.encode())


def available() -> dict[str, EntryPoint]:
    """Every installed cipher by name; imports none of them."""
    return {item.name: item for item in entry_points(group=ENTRY_POINT_GROUP)}


def load(name: str, options: Mapping[str, Any], keys: EncryptionKeys) -> Cipher:
    """The cipher that the configuration names.

    Raises:
        PluginError: It is not installed, is there twice, or does not load.
        ConfigError: An option cannot be used, or what it needs is not installed.
    """
    from durable_monty import faults
    from durable_monty.explain import explain

    found = [item for item in entry_points(group=ENTRY_POINT_GROUP) if item.name == name]
    if not found:
        raise PluginError(
            f"[security] cipher {name!r}: no such cipher is installed in {sys.prefix}; installed: "
            f"{', '.join(sorted(available())) or 'none'}; install the distribution that has it"
        )
    if len(found) > 1:
        raise PluginError(f"[security] cipher {name!r}: {faults.duplicated(name, found)}")
    try:
        cls: Any = found[0].load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # `sys.exit()` in a plug-in must not end the worker.
        raise PluginError(f"[security] cipher {name!r}: {faults.not_loaded(found[0], error)}") from error
    try:
        settings = cls.Settings(**options)
    except ValidationError as error:
        raise ConfigError(explain(error, cls.Settings, ("security", "cipher_options"), "the configuration")) from error
    made: Cipher = cls(settings, keys)
    return made


def _derived(key: bytes) -> bytes:
    return hashlib.sha512(b"durable-monty aes-siv key\0" + key).digest()


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"durable-monty aes-siv key id\0" + _derived(key)).hexdigest()[:8]

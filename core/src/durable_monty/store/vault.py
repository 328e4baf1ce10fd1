"""Encryption at rest: what the store's rows hold in place of what they mean, if there is a cipher.

Encrypted texts begin with `$sealed:`, which no JSON does, so that rows of both kinds can be read side by side, and read
`$sealed:<cipher>:<key id>:<base64>`; snapshots hold the bytes themselves behind the same header. Each is bound to its
place: execution, column and call.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from durable_monty.codec import Unreadable
from durable_monty.encryption import CannotDecrypt, Cipher
from durable_monty.records import CallRow, Settlement, Snapshot, Turn

PREFIX = "$sealed:"
UNREADABLE_DELAY_SECONDS = 10.0
"""How long until an execution, or a call, that could not be decrypted is tried again: another worker may have the key."""
UNREADABLE_NOTE = "not readable here: "
"""How the note of an execution begins that could not be decrypted when it was tried last."""
_PREFIX_BYTES = PREFIX.encode()
_OPTION = "durable_monty_vault"
OF_CALL = ("arguments", "outcome", "progress")
OF_EXECUTION = ("inputs", "output", "error", "memo")
"""Columns of these tables that are encrypted, each as a text of its own kind."""
_DIGEST_BYTES = 32


class Vault:
    """Encrypts and decrypts for one database; without a cipher everything passes through as it is.

    Attributes:
        cipher: The cipher and its name in the configuration, or None.
    """

    def __init__(self) -> None:
        self.cipher: Cipher | None = None
        self.name = ""
        self.is_hiding = False

    def use(self, cipher: Cipher, name: str) -> None:
        """Encrypt with this from now on, if it has a current key, and decrypt with it."""
        self.cipher, self.name, self.is_hiding = cipher, name, bool(cipher.key_id)

    @property
    def header(self) -> str:
        """How what is encrypted now begins; empty if nothing is."""
        return f"{PREFIX}{self.name}:{self.cipher.key_id}:" if self.cipher is not None and self.is_hiding else ""

    def hide(self, text: str | None, kind: str, execution_id: str, call_id: int | str = "") -> Any:
        """The text as it is stored: encrypted, if there is a current key."""
        if text is None or not self.is_hiding or isinstance(text, Unreadable):
            # What could not be read is kept as it is.
            return text
        assert self.cipher is not None
        sealed = self.cipher.encrypt(text.encode("utf-8", "surrogatepass"), _context(kind, execution_id, call_id))
        return self.header + base64.b64encode(sealed).decode()

    def show(self, text: Any, kind: str, execution_id: str, call_id: int | str = "") -> Any:
        """The text that was hidden; an `Unreadable` if that cannot be had."""
        if text is None or not text.startswith(PREFIX):
            return text
        place = f"{kind} of execution {execution_id!r}" + (f", {call_id}" if call_id != "" else "")
        try:
            data = self._opened(text.split(":", 3), _context(kind, execution_id, call_id))
        except CannotDecrypt as error:
            return Unreadable(text, f"reading {place}: {error}")
        return data.decode("utf-8", "surrogatepass")

    def hide_snapshot(self, execution_id: str, snapshot: Snapshot) -> Snapshot:
        """The snapshot as it is stored. Its digest is encrypted too: it would tell whether a guess is right."""
        if not self.is_hiding:
            return snapshot
        assert self.cipher is not None
        context = _context("snapshot", execution_id, snapshot.version)
        sealed = self.cipher.encrypt(snapshot.digest + snapshot.data, context)
        return replace(snapshot, digest=b"", data=self.header.encode() + sealed)

    def show_snapshot(self, execution_id: str, snapshot: Snapshot) -> Snapshot:
        """The snapshot that was hidden; as it is stored, which is of no turn, if that cannot be had."""
        if not snapshot.data.startswith(_PREFIX_BYTES):
            return snapshot
        head, _, rest = snapshot.data[len(_PREFIX_BYTES) :].partition(b":")
        key_id, _, sealed = rest.partition(b":")
        parts = ["$sealed", head.decode("latin-1"), key_id.decode("latin-1"), sealed]
        try:
            data = self._opened(parts, _context("snapshot", execution_id, snapshot.version))
        except CannotDecrypt:
            return snapshot
        return replace(snapshot, digest=data[:_DIGEST_BYTES], data=data[_DIGEST_BYTES:])

    def show_values(
        self, values: dict[str, Any], names: Sequence[str], execution_id: str, call_id: int | str = ""
    ) -> None:
        """Replace what is hidden among the values of a row."""
        for name in names:
            text = values[name]
            if text is not None and text.startswith(PREFIX):
                values[name] = self.show(text, name, execution_id, call_id)

    def show_call(self, execution_id: str, values: dict[str, Any]) -> None:
        """Replace what is hidden in a call's row."""
        self.show_values(values, OF_CALL, execution_id, values["call_id"])

    def show_execution(self, values: dict[str, Any]) -> None:
        """Replace what is hidden in an execution's row."""
        self.show_values(values, OF_EXECUTION, values["id"])

    def hide_execution(self, values: dict[str, Any]) -> dict[str, Any]:
        """An execution's row as it is stored."""
        if self.is_hiding:
            for name in OF_EXECUTION:
                values[name] = self.hide(values[name], name, values["id"])
        return values

    def hide_settlement(self, item: Settlement) -> Settlement:
        """An outcome as it is stored."""
        return replace(item, outcome=self.hide(item.outcome, "outcome", item.execution_id, item.call_id))

    def hide_turn(self, turn: Turn) -> Turn:
        """A turn as it is stored."""
        id_ = turn.execution_id
        return replace(
            turn,
            output=self.hide(turn.output, "output", id_),
            error=self.hide(turn.error, "error", id_),
            calls=[self._hidden_call(id_, call) for call in turn.calls],
            snapshot=None if turn.snapshot is None else self.hide_snapshot(id_, turn.snapshot),
        )

    def _hidden_call(self, execution_id: str, call: CallRow) -> CallRow:
        hidden = {name: self.hide(getattr(call, name), name, execution_id, call.call_id) for name in OF_CALL}
        return replace(call, **hidden)

    def _opened(self, parts: Sequence[Any], context: bytes) -> bytes:
        """What is in `$sealed`, cipher, key id, data."""
        if len(parts) != 4:
            raise CannotDecrypt("it was cut off in the database; restore it from a backup")
        _, name, key_id, data = parts
        if self.cipher is None or name != self.name:
            raise CannotDecrypt(
                f"it is encrypted with the cipher {name!r} and the key {key_id}, and "
                + (
                    f"the cipher here is {self.name!r}"
                    if self.cipher is not None
                    else "no encryption is configured here"
                )
                + "; set [security] cipher and encryption_key, or previous_encryption_keys, as they were"
            )
        if isinstance(data, str):
            try:
                data = base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError) as error:
                raise CannotDecrypt("it was changed in the database; restore it from a backup") from error
        return self.cipher.decrypt(data, context, key_id)


PLAIN = Vault()
"""What uses no cipher and knows no key."""


def attach(vault: Vault, engine: Any) -> None:
    """Let every connection of an engine know its vault."""
    engine.update_execution_options(**{_OPTION: vault})


def vault_of(connection: Connection) -> Vault:
    """The vault of a connection's database."""
    found: Vault = connection.get_execution_options().get(_OPTION, PLAIN)
    return found


def failure_of(attempt: int) -> str:
    """The kind of text that the failure of an attempt is."""
    return f"failure {attempt}"


def _context(kind: str, execution_id: str, call_id: int | str) -> bytes:
    return f"{kind}\n{call_id}\n{execution_id}".encode("utf-8", "surrogatepass")

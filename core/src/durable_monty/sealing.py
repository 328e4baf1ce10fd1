"""Snapshots as they are stored: compressed, and sealed so that a damaged, swapped or forged one is never loaded."""

from __future__ import annotations

import hashlib
import hmac
import struct

from durable_monty.packing import pack, unpack
from durable_monty.records import Snapshot
from durable_monty.signing import is_signed, sign

_MONTY_MAGIC = b"MONTY\x00"


class SnapshotRefused(Exception):
    """A stored snapshot that must not be loaded; the execution is rebuilt from its log instead."""


def seal(execution_id: str, version: int, state: bytes, monty_version: str, key: bytes | None) -> Snapshot:
    """The stored form of a state.

    Args:
        key: The signing key, or None for a plain digest, which finds damage but no forgery.
    """
    data = pack(state)
    return Snapshot(version, monty_version, dump_format(state), _digest(execution_id, version, data, key), data)


def unseal(execution_id: str, version: int, snapshot: Snapshot, key: bytes | None) -> bytes:
    """The state that was sealed.

    Raises:
        SnapshotRefused: It is damaged, of another execution or turn, or not signed with `key`.
    """
    if snapshot.version != version:
        raise SnapshotRefused(f"the snapshot is of turn {snapshot.version}, the execution is at turn {version}")
    sealed = _sealed(execution_id, version, snapshot.data)
    if key is None and not hmac.compare_digest(snapshot.digest, hashlib.sha256(sealed).digest()):
        raise SnapshotRefused("its digest does not fit")
    if key is not None and not is_signed(key, sealed, snapshot.digest):
        raise SnapshotRefused("its signature does not fit")
    try:
        return unpack(snapshot.data)
    except ValueError as error:
        # Without a key anybody can make a digest that fits.
        raise SnapshotRefused(f"it cannot be unpacked: {error}") from error


def dump_format(state: bytes) -> int:
    """Monty's dump format number, from the header of a dump; 0 if it has none."""
    if state[:6] != _MONTY_MAGIC or len(state) < 8:
        return 0
    number: int = struct.unpack("<H", state[6:8])[0]
    return number


def _digest(execution_id: str, version: int, data: bytes, key: bytes | None) -> bytes:
    sealed = _sealed(execution_id, version, data)
    return sign(key, sealed) if key else hashlib.sha256(sealed).digest()


def _sealed(execution_id: str, version: int, data: bytes) -> bytes:
    return f"{execution_id}\n{version}\n".encode() + data

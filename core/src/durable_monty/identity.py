"""Who a worker is, and whether another worker on this host is still alive."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

from durable_monty.records import WorkerIdentity


def new_identity() -> WorkerIdentity:
    """An identity for this process; each call gives another one."""
    pid = os.getpid()
    return WorkerIdentity(uuid.uuid4().hex[:16], _host(), pid, process_started(pid) or 0)


def is_dead_here(identity: WorkerIdentity) -> bool:
    """Whether the worker was a process of this host and is gone; its lease need not be waited for."""
    if identity.host != _host():
        return False
    if identity.process_started:
        return process_started(identity.pid) != identity.process_started
    try:
        os.kill(identity.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def process_started(pid: int) -> int | None:
    """When a process of this host was started, in clock ticks since boot; None if there is none or it cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name, in parentheses, may hold spaces and parentheses itself.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])


def _host() -> str:
    """The host's name, made unique per boot: process ids mean something only within one boot of one machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"

"""Places that a run may hurt without hurting the machine: a disk that can be filled, a host that can be cut off.

A run has network and mounts of its own, see `__main__`; they end with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from support.proxy import Proxy

_OUR_ADDRESS, _THEIR_ADDRESS = "192.0.2.1", "192.0.2.2"
_MIB = 1 << 20


class SmallDisk:
    """A file system in memory with room for so much.

    Args:
        folder: Where it is; it is made.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        folder.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder))

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab") as file:
            for size_bytes in (16 * _MIB, _MIB, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size_bytes)

    def empty(self) -> None:
        """Leave room again."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Take it away."""
        _run("umount", "--lazy", str(self.folder))


class OtherHost:
    """Another host, as far as the network goes and the name: processes there reach servers of this one over a cable.

    Attributes:
        prefix: What a command begins with to be run there.
    """

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", "hostname other-host && echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        target = str(self._holder.pid)
        self.prefix = ["nsenter", "--net", "--uts", "--target", target]
        _run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable-end", "netns", target)
        _run("ip", "address", "add", f"{_OUR_ADDRESS}/24", "dev", "cable")
        _run("ip", "link", "set", "cable", "up")
        _run(*self.prefix, "ip", "address", "add", f"{_THEIR_ADDRESS}/24", "dev", "cable-end")
        for device in ("lo", "cable-end"):
            _run(*self.prefix, "ip", "link", "set", device, "up")
        self._proxies: list[Proxy] = []

    def reach(self, port: int) -> str:
        """Make a server of this host reachable from there; gives the address, `host:port`."""
        proxy = Proxy(port, _OUR_ADDRESS)
        self._proxies.append(proxy)
        return f"{_OUR_ADDRESS}:{proxy.port}"

    def cut(self) -> None:
        """Pull the cable: what is sent is lost, and nobody is told."""
        _run("ip", "link", "set", "cable", "down")

    def heal(self) -> None:
        """Plug it in again."""
        _run("ip", "link", "set", "cable", "up")

    def close(self) -> None:
        """Take it away; what runs there has ended before."""
        for proxy in self._proxies:
            proxy.close()
        self._holder.kill()
        self._holder.wait()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)

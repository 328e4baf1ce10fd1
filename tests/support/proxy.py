"""A TCP proxy that breaks the connections it carries, in mid-stream and at chosen moments."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field

_LARGE_BYTES = 300
_ACCEPT_SECONDS = 0.2


@dataclass(eq=False)
class _Carried:
    """One connection: both ends, and whether the next answer of the server is to be lost."""

    client: socket.socket
    server: socket.socket
    loses_answer: bool = False
    is_closed: bool = field(default=False)

    def close(self) -> None:
        self.is_closed = True
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                # Both threads wake up, and both ends see it at once.
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Carries connections to `target_port` on this machine until it is told to break them.

    Args:
        host: The address on which it listens.

    Attributes:
        port: The port on which it listens.
        dropped: How many connections it has broken.
        lost_answers: How many answers it has kept for itself.
    """

    def __init__(self, target_port: int, host: str = "127.0.0.1") -> None:
        self._target_port = target_port
        self._listener = socket.create_server((host, 0))
        self._listener.settimeout(_ACCEPT_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._carried: set[_Carried] = set()
        self._lock = threading.Lock()
        self._answers_to_lose = 0
        self._is_closed = False
        self.dropped = 0
        self.lost_answers = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def drop(self) -> None:
        """Break every connection, wherever it is in its stream."""
        with self._lock:
            carried = list(self._carried)
        for connection in carried:
            self.dropped += 1
            connection.close()

    def lose_answers(self, count: int) -> None:
        """Let the next `count` writes reach the server and be answered; their connections break instead of answering.

        Whoever sent them cannot know whether they were done. A write is what holds a COMMIT, or is as long as the
        statements are that record turns.
        """
        with self._lock:
            self._answers_to_lose = count

    def close(self) -> None:
        """Break everything and stop."""
        self._is_closed = True
        self._thread.join()
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port), 5)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            carried = _Carried(client, server)
            with self._lock:
                self._carried.add(carried)
            threading.Thread(target=self._carry, args=(carried, client, server), daemon=True).start()
            threading.Thread(target=self._carry, args=(carried, server, client), daemon=True).start()

    def _carry(self, carried: _Carried, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source is carried.client:
                    self._choose(carried, data)
                elif carried.loses_answer:
                    self.lost_answers += 1
                    break
                sink.sendall(data)
        carried.close()
        with self._lock:
            self._carried.discard(carried)

    def _choose(self, carried: _Carried, data: bytes) -> None:
        with self._lock:
            if self._answers_to_lose and (b"COMMIT" in data or len(data) > _LARGE_BYTES):
                self._answers_to_lose -= 1
                carried.loses_answer = True

"""Mode `process`: each lane has a child process of its own, so that a crash or a timeout takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from durable_monty import functions, remote

# By spawn, never by fork: the worker has threads, and sandbox processes that do not survive a fork.
_context = multiprocessing.get_context("spawn")
_STOP_SECONDS = 1.0
# What the child sends begins with one of these.
_BEAT = b"b"
_REPLY = b"r"


class ChildDied(Exception):
    """The process ended before it answered."""


class ChildTimedOut(Exception):
    """The process did not answer in time and was killed."""


class Child:
    """A process that runs one envelope after the other; started at the first, and again after it died.

    Args:
        allow: The allow-list that the child has.
        signing_key: The key that the child has.
    """

    def __init__(self, allow: tuple[str, ...], signing_key: bytes | None) -> None:
        self._settings = (allow, signing_key)
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def run(self, envelope: bytes, timeout_seconds: float | None, beat: Callable[[bytes], None]) -> bytes:
        """The reply to an envelope.

        Args:
            beat: Takes the signs of life.

        Raises:
            ChildDied: The process ended, whatever the reason.
            ChildTimedOut: It took longer than `timeout_seconds`.
        """
        pipe = self._started()
        try:
            pipe.send_bytes(envelope)
            ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
            while True:
                if not pipe.poll(None if ends_at is None else max(ends_at - time.monotonic(), 0.0)):
                    self.kill()
                    raise ChildTimedOut
                message = pipe.recv_bytes()
                if not message.startswith(_BEAT):
                    return message[1:]
                beat(message[1:])
        except (EOFError, OSError) as error:
            code = self._exit_code()
            self.kill()
            raise ChildDied(f"the process that ran it ended with exit code {code}") from error

    def interrupt(self) -> None:
        """End the process from another thread than the one that waits for it; that one sees it die."""
        process = self._process
        if process is not None:
            process.kill()

    def kill(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.join(_STOP_SECONDS)

    def _started(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self.kill()
        ours, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs, *self._settings), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        return ours

    def _exit_code(self) -> int | None:
        if self._process is None:
            return None
        self._process.join(_STOP_SECONDS)
        return self._process.exitcode


def _serve(pipe: Connection, allow: tuple[str, ...], signing_key: bytes | None) -> None:
    """The child's main function."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    remote.configure(signing_key=signing_key, allow=allow)
    # Signs of life come from other threads than the reply.
    lock = threading.Lock()

    def send(kind: bytes, message: bytes) -> None:
        with lock:
            pipe.send_bytes(kind + message)

    while True:
        try:
            envelope = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        send(_REPLY, remote.run(envelope, lambda message: send(_BEAT, message)))


def _end_with_parent() -> None:
    """A worker that is killed cannot end its children; they notice by themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def settings_of_this_process() -> tuple[tuple[str, ...], bytes | None]:
    """What a child needs to run what this process may run."""
    return functions.allowed_patterns(), remote.signing_key()

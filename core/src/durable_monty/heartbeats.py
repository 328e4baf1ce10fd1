"""Signs of life on the remote side: sent seldom enough to cost nothing, and never forgotten. Standard library only."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from durable_monty import codec, convert
from durable_monty.envelope import encode_heartbeat

log = logging.getLogger(__name__)

SEND_INTERVAL_SECONDS = 0.25
"""At most one message of a call goes out in so long; the last one always does."""

Send = Callable[[bytes], None]


class Heartbeats:
    """Sends the heartbeats of one attempt. Safe to use from several threads.

    Args:
        send: Takes the bytes of one message to where the worker finds them; what it raises is logged.
    """

    def __init__(self, job_id: str, send: Send, key: bytes | None) -> None:
        self._job_id = job_id
        self._send = send
        self._key = key
        # Held while sending, so that messages go out in their order.
        self._lock = threading.Lock()
        self._sent_at = float("-inf")
        self._progress: str | None = None
        self._timer: threading.Timer | None = None
        self._is_waiting = False
        self._is_over = False

    def begin(self) -> None:
        """Tell that the attempt has begun to run."""
        with self._lock:
            self._send_now()

    def beat(self, progress: Any) -> None:
        """Tell that the attempt is alive, now or in a moment.

        Raises:
            EncodeError: The progress cannot be carried.
        """
        text = None if progress is None else codec.dumps(convert.plain(progress), path="progress")
        with self._lock:
            if self._is_over:
                return
            self._progress = text or self._progress
            wait = self._sent_at + SEND_INTERVAL_SECONDS - time.monotonic()
            if wait <= 0:
                self._send_now()
            elif not self._is_waiting:
                self._is_waiting = True
                self._timer = threading.Timer(wait + 0.001, self._send_late)
                self._timer.daemon = True
                self._timer.start()

    def end(self, *, has_failed: bool) -> None:
        """Send nothing any more; the last progress of an attempt that failed goes to the next one."""
        with self._lock:
            self._is_over = True
            if self._timer is not None:
                self._timer.cancel()
            if self._is_waiting and has_failed:
                self._send_now()

    def _send_late(self) -> None:
        with self._lock:
            # Another timer may have been started since: this one comes too early for what waits now.
            is_due = time.monotonic() >= self._sent_at + SEND_INTERVAL_SECONDS
            if self._is_waiting and is_due and not self._is_over:
                self._send_now()

    def _send_now(self) -> None:
        self._is_waiting = False
        self._sent_at = time.monotonic()
        try:
            self._send(encode_heartbeat(self._job_id, self._progress, self._key))
        except Exception as error:  # noqa: BLE001 - the call goes on without being heard of
            log.warning(
                "sending a heartbeat failed: %s: %s", type(error).__name__, error, extra={"job_id": self._job_id}
            )

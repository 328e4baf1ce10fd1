"""Workers in threads, and waiting for what they bring about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from durable_monty import Worker

DEADLINE_SECONDS = 30.0


@contextmanager
def running(*workers: Worker) -> Iterator[None]:
    """The workers in threads of their own, stopped at the end."""
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
    assert not [thread for thread in threads if thread.is_alive()]


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it is true; an assertion fails if it does not become so."""
    ends_at = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < ends_at, "it never came about"
        time.sleep(0.01)

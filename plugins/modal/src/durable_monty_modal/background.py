"""An event loop in a thread of its own, so that what waits for Modal can be left at any moment."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_STOP_SECONDS = 2.0


class Stopped(Exception):
    """The loop was stopped while, or before, something ran on it."""


class Background:
    """Runs coroutines; from any thread. The thread begins with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._waiting: set[concurrent.futures.Future[Any]] = set()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it to its end.

        Raises:
            Stopped: `stop` was called meanwhile. Besides this, whatever the coroutine raises.
        """
        with self._lock:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._started())
            self._waiting.add(future)
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise Stopped from error
        finally:
            self._waiting.discard(future)

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """End everything that runs, then run `last` for a moment, then end the thread. Returns soon in any case."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            last.close()
            return
        for future in list(self._waiting):
            future.cancel()
        asyncio.run_coroutine_threadsafe(_end(loop, last), loop)
        thread.join(_STOP_SECONDS)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_work, args=(self._loop,), name=self._name, daemon=True)
            self._thread.start()
        return self._loop


def _work(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _end(loop: asyncio.AbstractEventLoop, last: Coroutine[Any, Any, None]) -> None:
    others = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_STOP_SECONDS / 4)
    await asyncio.wait([asyncio.ensure_future(last)], timeout=_STOP_SECONDS / 2)
    loop.stop()

"""Where `async def` functions run: one event loop in a daemon thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from durable_monty import remote
from durable_monty.models import Call, Failure, Outcome
from durable_monty_local.failures import timed_out

if TYPE_CHECKING:
    from durable_monty_local.executor import Executor

_CLOSE_SECONDS = 1.0


class LoopThread:
    """An event loop that runs calls, as many at a time as it is given.

    Args:
        executor: Gets each outcome, in the loop's thread.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="durable-monty-local-loop", daemon=True)
        self._thread.start()

    def put(self, calls: Sequence[Call]) -> None:
        """Start these calls."""
        self._loop.call_soon_threadsafe(self._start, calls)

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel these calls where they are."""
        self._loop.call_soon_threadsafe(self._cancel, job_ids)

    def close(self) -> None:
        """Cancel what runs and end the loop; a function that does not end within a second is left where it is."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop.stop()

    def _start(self, calls: Sequence[Call]) -> None:
        for call in calls:
            task = self._loop.create_task(self._run(call))
            self._tasks[call.job_id] = task
            task.add_done_callback(lambda _, job_id=call.job_id: self._tasks.pop(job_id, None))  # type: ignore[misc]  # mypy cannot type a lambda's default

    def _cancel(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            task = self._tasks.get(job_id)
            if task is not None:
                task.cancel()

    async def _run(self, call: Call) -> None:
        transaction = self._executor.transaction(call)
        try:
            async with asyncio.timeout(call.timeout_seconds) as limit:
                reply = await remote.run_async(call.envelope, self._executor.beat_of(call), transaction)
            outcome = Outcome(call.job_id, reply=reply)
        except TimeoutError:
            assert limit.expired()
            outcome = Outcome(call.job_id, failure=timed_out(call))
        except asyncio.CancelledError:
            outcome = Outcome(call.job_id, failure=Failure("cancelled", "CancelledError", "the call was cancelled"))
        if transaction is None or not transaction.is_settled:
            self._executor.report(outcome)

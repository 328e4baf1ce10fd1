"""The pool of sandbox processes: opened when it is first needed, never carried across a fork."""

from __future__ import annotations

import datetime as dt
import functools
import importlib.metadata
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pydantic_monty as monty

from durable_monty.interpreter.budget import Budget, Limits
from durable_monty.interpreter.session import Session

if TYPE_CHECKING:
    from durable_monty.records import FunctionRef

MAX_SUSPENSIONS = 10**7
"""Frozen into every run. Monty's default of 1,000 would end a fan-out of 1,000 calls."""


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Interpreter:
    """Runs workflows in sandbox processes. Safe to use from several threads; each session belongs to one.

    Args:
        now: The wall clock that workflows read, as an aware datetime.
    """

    def __init__(self, limits: Limits | None = None, *, now: Callable[[], dt.datetime] = _utc_now) -> None:
        self.limits = limits or Limits()
        self._now = now
        self._lock = threading.Lock()
        self._pool: monty.Monty | None = None
        self._pool_pid = 0

    @functools.cached_property
    def monty_version(self) -> str:
        """The installed Monty's version."""
        return importlib.metadata.version("pydantic-monty")

    def open(
        self,
        functions: Mapping[str, FunctionRef],
        line_of: Callable[[int], int],
        seed: str,
        on_print: Callable[[str], None] = lambda text: None,
    ) -> Session:
        """A fresh session, to be started or loaded, then closed.

        Args:
            functions: The host functions that the workflow may call, by the name it uses.
            line_of: The line in the user's file for a byte offset in the fed source.
            seed: Seeds `random` in the sandbox, so that a replay draws the same numbers.
            on_print: Gets what the workflow prints; text may come again after a crash.
        """
        stack = ExitStack()
        raw = stack.enter_context(
            self._started_pool().checkout(
                limits={
                    "max_suspensions": MAX_SUSPENSIONS,
                    "max_memory": self.limits.max_memory_bytes,
                    "max_turn_duration_secs": self.limits.max_turn_seconds,
                },
                os_policy={
                    "sleep": "call_host",
                    "datetime": "call_host",
                    "random_start": {"seed": seed},
                },
            )
        )
        return Session(raw, stack, functions, line_of, self._now, on_print, Budget(self.limits))

    @contextmanager
    def checkout(self, **options: Any) -> Iterator[monty.MontySession]:
        """A bare session with these options, for the check at submit."""
        with self._started_pool().checkout(**options) as raw:
            yield raw

    def close(self) -> None:
        """End the sandbox processes. The interpreter opens new ones if it is used again."""
        with self._lock:
            pool, self._pool = self._pool, None
            if pool is not None and self._pool_pid == os.getpid():
                pool.__exit__(None, None, None)

    def _started_pool(self) -> monty.Monty:
        with self._lock:
            if self._pool is not None and self._pool_pid != os.getpid():
                # A pool's threads do not survive a fork: any use of it would hang.
                raise RuntimeError(
                    f"using the interpreter in process {os.getpid()}: its sandbox pool was opened by process "
                    f"{self._pool_pid} before a fork; open the service after forking, or start processes by spawn"
                )
            if self._pool is None:
                pool = monty.Monty(
                    min_processes=1,
                    max_processes=self.limits.processes,
                    request_timeout=self.limits.request_timeout_seconds,
                )
                self._pool, self._pool_pid = pool.__enter__(), os.getpid()
            return self._pool

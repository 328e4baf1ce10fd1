"""What one execution may have in hand at a time, beyond what the sandbox limits itself.

The sandbox limits its heap, and the time between two suspensions. Everything that a workflow asks the host for is a
suspension, also what is answered at once: without a limit of ours a loop around a clock reading would never end, and the
calls of a boundless fan-out would fill the memory of the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

DEFAULT_MAX_VALUE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one execution may use. The first two are frozen into it at its first start.

    Attributes:
        max_memory_bytes: Heap of the sandboxed program.
        max_turn_seconds: Longest stretch without a call that is waited for.
        request_timeout_seconds: When a sandbox process that does not answer is killed; the backstop of the turn limit.
        processes: Most sandbox processes of this process; one suspended execution kept at hand occupies one.
        max_open_calls: Most calls that are open at the same time; also the most that one turn may make which are
            answered at once.
        max_value_bytes: Longest text of a value: arguments, a result, an output, a signal.
        max_print_characters: Most that one turn may print; the rest is dropped.
        max_source_bytes: Longest source of a workflow.
    """

    max_memory_bytes: int = 256 * 1024 * 1024
    max_turn_seconds: float = 10.0
    request_timeout_seconds: float = 20.0
    processes: int = 4
    max_open_calls: int = 100_000
    max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES
    max_print_characters: int = 1_000_000
    max_source_bytes: int = 1024 * 1024


class OverLimit(Exception):
    """The execution has to end: it is over one of these limits."""

    def __init__(self, type_: str, message: str) -> None:
        self.type = type_
        super().__init__(message)


class Budget:
    """What one session has used of its limits since its turn began.

    Args:
        clock: Seconds, of any origin.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._seconds = 0.0
        self._at = clock()
        self.begin(0)

    def begin(self, open_calls: int) -> None:
        """A turn begins, with so many calls open."""
        self._open = open_calls
        self._answered = 0
        self._printed = 0
        self._restart()

    def delivered(self, count: int) -> None:
        """So many outcomes enter the sandbox."""
        self._open -= count
        self._restart()

    def announce(self, *, is_answered: bool) -> None:
        """The workflow makes a call.

        Raises:
            OverLimit: It is one too many.
        """
        most = self.limits.max_open_calls
        if is_answered:
            self._answered += 1
            if self._answered > most:
                raise OverLimit(
                    "RuntimeError",
                    f"the workflow asked for the time or published something {most} times without waiting for anything "
                    "([interpreter] max_open_calls); await something in between",
                )
            return
        self._restart()
        self._open += 1
        if self._open > most:
            raise OverLimit(
                "RuntimeError",
                f"the workflow has {most} open calls and makes another ([interpreter] max_open_calls); make fewer at a "
                "time, for example by `map(fn, items, limit=...)` of durable_monty.flow",
            )

    def suspend(self) -> None:
        """The sandbox asks the host for something.

        Raises:
            OverLimit: It has done so for too long, and has not made a call that is waited for.
        """
        before, self._at = self._at, self._clock()
        took = self._at - before
        # The sandbox itself allows no such stretch: the worker was stopped meanwhile, or its machine slept.
        if took <= self.limits.max_turn_seconds:
            self._seconds += took
        if self._seconds > self.limits.max_turn_seconds:
            raise OverLimit(
                "TimeoutError",
                f"a turn ran longer than {self.limits.max_turn_seconds:g} s without a call that is waited for "
                "([interpreter] max_turn_seconds)",
            )

    def _restart(self) -> None:
        self._seconds = 0.0
        self._at = self._clock()

    def fit(self, text: str, what: str) -> str:
        """The text of a value, if it is not too long.

        Raises:
            ValueError: It is.
        """
        return fitting(text, what, self.limits.max_value_bytes)

    def shown(self, text: str) -> str:
        """What of a printed text is passed on."""
        left = self.limits.max_print_characters - self._printed
        self._printed += len(text)
        if self._printed <= self.limits.max_print_characters:
            return text
        if left < 0:
            return ""
        return (
            f"{text[:left]}\n(more than {self.limits.max_print_characters} characters printed in one turn, the rest is "
            "dropped: [interpreter] max_print_characters)\n"
        )


def fitting(text: str, what: str, most: int) -> str:
    """The text of a value, if it has no more bytes than `most`.

    Raises:
        ValueError: It has.
    """
    size = len(text) if text.isascii() else len(text.encode())
    if size > most:
        raise ValueError(too_large(what, size, most))
    return text


def too_large(what: str, size: int, most: int) -> str:
    """What is said of a value whose text is too long."""
    return (
        f"{what} is {size} bytes as text, {most} are the most ([interpreter] max_value_bytes); keep large things in a "
        "file or an object store, and pass where they are"
    )

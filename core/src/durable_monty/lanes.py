"""Doing many things that mostly wait for other processes, a few at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_lanes(function: Callable[[T], R], items: Iterable[T], lanes: int) -> list[R]:
    """What `function` gives for each of the items, in their order; so many at a time.

    This thread is one of the lanes. Once a call has raised no other begins, and what it raised is raised here when those
    that had begun have ended.
    """
    todo = deque(enumerate(items))
    done: dict[int, R] = {}
    errors: list[BaseException] = []

    def work() -> None:
        while todo and not errors:
            try:
                index, item = todo.popleft()
            except IndexError:
                return
            try:
                done[index] = function(item)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                errors.append(error)

    others = [threading.Thread(target=work, name=f"durable-monty-lane-{number}") for number in range(1, lanes)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
    return [done[index] for index in sorted(done)]

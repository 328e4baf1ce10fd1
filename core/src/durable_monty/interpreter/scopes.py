"""Which race a call runs in, so that the calls of those that lost can be cancelled.

A scope is the path of the races around a piece of workflow code: `/`-separated call ids of the marks that opened them,
outermost first; the empty text is outside any. The sandbox cannot be asked which of its tasks is running, but three
things tell: a task that a `gather` starts says so (`_enter`), an outcome lets exactly the task go on that made the
call, if outcomes are delivered one at a time, and a race says where it begins and ends (`_open`, `_close`).

When a race is over, what is still open in it has lost. Losing is written into the scope of a call, because its task may
go on in a later turn:

* `12!`: its task was told (a `BaseException` at its `await`). What the task calls now is cleaning up, and is let be.
* `12?`: it had an outcome already when the race ended. What its task calls next is cancelled at once, also within
  another race that it opens there (`12?/20`).
"""

from __future__ import annotations

TOLD = "!"
UNTOLD = "?"


def inner(scope: str, call_id: int) -> str:
    """The scope of a race that the mark `call_id` opens in `scope`."""
    return f"{scope}/{call_id}" if scope else str(call_id)


def outer(scope: str) -> str:
    """The scope around a race."""
    return scope.rpartition("/")[0]


def after(race: str) -> str:
    """The scope in which the code after a race runs; if that had lost before, it has been told within the race."""
    return outer(race).replace(UNTOLD, TOLD)


def is_within(scope: str, race: str) -> bool:
    """Whether a call of this scope has lost if `race` is over now."""
    return scope == race or scope.startswith(f"{race}/")


def told(scope: str) -> str:
    """The scope of a call whose task was told that it has lost."""
    return scope.rstrip(TOLD + UNTOLD).replace(UNTOLD, TOLD) + TOLD


def untold(scope: str) -> str:
    """The scope of a call that lost and has an outcome that its task does not know yet."""
    return scope.rstrip(TOLD + UNTOLD) + UNTOLD


def is_untold(scope: str) -> bool:
    """Whether the next call of the task that made a call of this scope is to be cancelled."""
    return UNTOLD in scope

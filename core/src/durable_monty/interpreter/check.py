"""The check at submit: parse, type-check and compile a workflow in the sandbox without running a line of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pydantic_monty as monty

from durable_monty.errors import Problem
from durable_monty.interpreter.pool import Interpreter

_GATE = "durable_gate"


def check_source(interpreter: Interpreter, source: str, lines: Sequence[int], stubs: str) -> list[Problem]:
    """What is wrong with a workflow's source; empty if nothing.

    A call of a host function that the stubs declare stands as the first line: reaching it says that the whole source
    was parsed, type-checked and compiled, and nothing of it has run.

    Args:
        source: The workflow without the helpers and calls that are put around it.
        lines: For each line of it the line in the user's file.
        stubs: Everything that it may use without defining it.
    """
    gated = f"{_GATE}()\n{source}"
    options = {
        "type_check": True,
        "type_check_stubs": f"{stubs}\ndef {_GATE}() -> None: ...\n",
        "type_check_format": "json",
    }
    report = _Report(source.split("\n"), lines)
    with interpreter.checkout(**options) as session:
        try:
            position = session.feed_start(gated)
            while not isinstance(position, monty.FunctionSnapshot) or position.function_name != _GATE:
                # What imports of unknown modules ask for on the way to the type check.
                assert isinstance(position, monty.FunctionSnapshot)
                position = position.resume_auto()
        except monty.MontyTypingError as error:
            return [
                report.problem(item["location"]["row"], item["location"]["column"], item["message"])
                for item in json.loads(error.display())
            ]
        except monty.MontyRuntimeError as error:
            frame = error.traceback()[-1] if error.traceback() else None
            return [report.problem(frame.line if frame else 2, frame.column if frame else 1, error.display("msg"))]
        except monty.MontySyntaxError as error:
            return [report.problem(2, 1, str(error))]
        except monty.MontyError as error:
            # The process that checks has run out of time or memory, and was ended.
            return [report.problem(2, 1, f"it is too large or too deeply nested to be checked: {error}")]
    return []


class _Report:
    def __init__(self, text: Sequence[str], lines: Sequence[int]) -> None:
        self._text = text
        self._lines = lines

    def problem(self, row: int, column: int, message: str) -> Problem:
        """A problem at a position of the gated source, where the first line is 1."""
        index = min(max(row - 2, 0), len(self._text) - 1)
        return Problem(self._lines[index], column, _explained(message), self._text[index])


def _explained(message: str) -> str:
    if "CoroutineType" in message or "is not awaited" in message:
        return f"{message}; is an `await` missing?"
    if "not awaitable" in message or "can't be awaited" in message:
        return f"{message}; a function declared with blocking=True is called without `await`"
    if any(words in message for words in ("Cannot resolve imported module", "used when not defined")):
        return f"{message}; the sandbox lacks it: put what needs it into a host function"
    if "does not yet support" in message:
        return f"{message}; write it in another way, or put it into a host function"
    return message

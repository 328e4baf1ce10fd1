"""An agent: a model chooses the next tool at run time, until it has an answer."""

from __future__ import annotations

import re
from typing import Any

from durable_monty import Retry, function, workflow
from durable_monty.flow import emit, signal

FACTS = {"bolt": "a bolt costs 12 cents", "nut": "a nut costs 5 cents"}


@function(retry=Retry(attempts=5, first_delay_seconds=1), timeout_seconds=60)
def think(task: str, notes: list[str]) -> dict[str, Any]:
    """Stands for a language model: the next tool with its arguments, or the answer."""
    for name in FACTS:
        if name in task and not any(f"a {name} costs" in note for note in notes):
            return {"tool": "search", "args": {"words": name}}
    if not any(note.startswith("sum ") for note in notes):
        prices = [int(price) for note in notes for price in re.findall(r"costs (\d+)", note)]
        return {"tool": "add", "args": {"numbers": prices}}
    if not any(note.startswith("the person says") for note in notes):
        return {"tool": "ask", "args": {"question": "shall I buy them?"}}
    return {"answer": notes[-2].removeprefix("sum ") + " cents, " + notes[-1].removeprefix("the person says ")}


@function(timeout_seconds=30)
def search(words: str) -> str:
    return FACTS[words]


@function
def add(numbers: list[int]) -> str:
    return f"sum {sum(numbers)}"


async def ask(question: str) -> str:
    """A tool that is a person: answered by the signal `answer`."""
    emit("questions", question)
    return "the person says " + str(await signal("answer"))


@workflow
async def agent(task: str, most_steps: int = 20) -> str:
    tools: dict[str, Any] = {"search": search, "add": add, "ask": ask}
    notes: list[str] = []
    for _ in range(most_steps):
        step = await think(task, notes)
        if "answer" in step:
            return str(step["answer"])
        emit("steps", step)
        try:
            notes.append(await tools[step["tool"]](**step["args"]))
        except Exception as error:  # noqa: BLE001 - whatever it was, the model is told
            notes.append(f"{step['tool']} failed: {error}")
    return "no answer within the steps that were allowed"

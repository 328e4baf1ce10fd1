"""Calls of what only the helpers of `durable_monty.flow` are to call, with arguments that these never use."""

from __future__ import annotations

_FLOW = (
    "from durable_monty.flow import race, as_completed, signal, publish, emit, send_signal, child, start_child, timeout\n"
    "used = [race, as_completed, signal, timeout]\n"
)
_ODD = {
    "nothing": "",
    "a number": "3",
    "None": "None",
    "a text": "'a'",
    "a null character": "'\\0'",
    "a long text": "'1' * 10 ** 6",
    "a deep scope": "'1/' * 10 ** 5",
    "a scope that lost": "'5?'",
    "somebody else's scope": "'99999/1'",
    "a list": "[[1]]",
    "an instance": "A()",
    "a class": "A",
    "a module": "json",
    "a keyword": "scope='1'",
    "two": "'1', [add(1, 2)]",
    "many": "*range(1000)",
    "a set": "{1, 2}",
    "a call that there is not": "['<coroutine external_future(123456789012345678901234567890)>']",
}
_NAMES = ("_here", "_open", "_enter", "_close", "_box", "_put")
_PUT_BEFORE = "import json\nclass A:\n    pass\n"


def _marks() -> dict[str, str]:
    return {
        f"{name} with {what}": f"{_PUT_BEFORE}{_FLOW}{name}({given})\nawait race(add(1, 2), add(3, 4))"
        for name in _NAMES
        for what, given in _ODD.items()
    }


def _operations() -> dict[str, str]:
    return {
        f"{name} with {what}": f"{_PUT_BEFORE}{_FLOW}await timeout({name}({given}), 0.05)"
        for name in ("_next", "_signal", "signal", "send_signal", "child", "start_child")
        for what, given in _ODD.items()
    }


def _named_null() -> dict[str, str]:
    calls = {
        "publish": "publish('a\\0b', 1)",
        "emit": "emit('a\\0b', 1)",
        "signal": "await signal('a\\0b', timeout_seconds=0)",
        "send_signal": "await send_signal('somebody', 'a\\0b')",
        "child": "await child('a\\0b')",
        "child's id": "await child('x', execution_id='a\\0b')",
        "executor": "await add(1, 2, _options={'executor': 'a\\0b'})",
        "queue": "await add(1, 2, _options={'queue': 'a\\0b'})",
        "key": "await add(1, 2, _options={'key': 'a\\0b', 'concurrency': 1})",
    }
    return {f"{what} named with a null character": f"{_FLOW}{call}" for what, call in calls.items()}


def _options() -> dict[str, str]:
    given = {
        "timeout that has no float": "{'timeout_seconds': 10 ** 400}",
        "factor that has no float": "{'retry': {'factor': 10 ** 400}}",
        "attempts beyond counting": "{'retry': {'attempts': 10 ** 30}}",
        "concurrency beyond counting": "{'concurrency': 10 ** 30}",
        "priority beyond counting": "{'priority': 10 ** 30}",
        "endless time": "{'timeout_seconds': float('inf')}",
        "no time": "{'timeout_seconds': float('nan')}",
        "resources that are no JSON": "{'resources': {'a': {1, 2}}}",
        "resources within themselves": "{'resources': r}",
        "number for a name": "{1: 2}",
        "no dictionary": "3",
        "list": "[['a', 1]]",
        "instance": "A()",
        "long executor": "{'executor': 'x' * 10 ** 6}",
        "long rate": "{'rate': '9' * 5000 + '/s'}",
    }
    before = f"{_PUT_BEFORE}r = {{}}\nr['r'] = r\n"
    return {f"options: {what}": f"{before}await add(1, 2, _options={text})" for what, text in given.items()}


def _shadows() -> dict[str, str]:
    """The helpers' own names, taken by the workflow."""
    return {
        f"{name} shadowed": f"{_FLOW}{name} = 3\nawait race(add(1, 2), add(3, 4))"
        for name in (*_NAMES, "_gather", "_tasks", "_sleep", "_race")
    } | {
        "marks in a loop": f"{_FLOW}for i in range(20000):\n    _here([])\n    _put('1')\n1",
        "scopes closed twice": f"{_FLOW}a = add(1, 2)\ns = _open('', [a])\n_close(s)\n_close(s)\nawait a",
        "scope closed before its calls": f"{_FLOW}s = _open('', [])\na = add(1, 2)\n_close('')\n_close(s)\nawait a",
        "channel that is filled before": f"{_FLOW}b = _box()\n_put(b)\nawait timeout(_next(b), 0.05)",
    }


CALLS: dict[str, str] = _marks() | _operations() | _named_null() | _options() | _shadows()

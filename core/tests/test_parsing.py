"""Parsing while other threads do."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from durable_monty import parsing


def test_what_another_thread_disturbs_is_parsed_again(monkeypatch):
    disturbed, original = [], ast.parse

    def disturbing(text, mode="exec"):
        if len(disturbed) < 3:
            disturbed.append(text)
            raise SystemError("AST constructor recursion depth mismatch (before=42, after=32)")
        return original(text, mode=mode)

    monkeypatch.setattr(ast, "parse", disturbing)
    assert isinstance(parsing.parse("x = 1"), ast.Module)
    assert isinstance(parsing.parse_expression("x + 1"), ast.Expression)
    assert len(disturbed) == 3


def test_what_is_always_disturbed_is_not_tried_for_ever(monkeypatch):
    def disturbing(text, mode="exec"):
        raise SystemError("no")

    monkeypatch.setattr(ast, "parse", disturbing)
    with pytest.raises(SystemError, match="no"):
        parsing.parse("x = 1")


def test_many_threads_parse_at_once():
    text = "\n".join(f"def f{n}(a, b):\n    return [a + b * {n} for a in range({n})]" for n in range(50))
    with ThreadPoolExecutor(8) as pool:
        assert len({ast.dump(tree) for tree in pool.map(parsing.parse, [text] * 64)}) == 1
    with pytest.raises(SyntaxError):
        parsing.parse("x =")

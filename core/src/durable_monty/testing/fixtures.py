"""Fixtures for pytest; imported by name into the `conftest.py` or the test module that wants them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from durable_monty.testing.workflows import WorkflowTest


@pytest.fixture
def workflow_test() -> Iterator[WorkflowTest]:
    """A `WorkflowTest` of its own for each test, closed at its end."""
    with WorkflowTest() as test:
        yield test

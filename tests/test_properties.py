"""Random workflows with random crashes return what plain asyncio returns.

`nox -s properties -- 2000` tries that many, and makes a failing one as small as it can.
"""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from durable_monty import init_db
from durable_monty.interpreter import Interpreter, Limits
from support.shapes import plain, shapes
from support.virtual import Virtual

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
CRASHES = st.lists(st.sampled_from(["", "", "", "crash", "rebuild"]), max_size=40)
numbers = itertools.count()


@pytest.fixture(scope="module")
def virtual():
    store = init_db("sqlite:///:memory:")
    interpreter = Interpreter(Limits(processes=6))
    yield Virtual(store, interpreter)
    interpreter.close()
    store.close()


@settings(
    max_examples=EXAMPLES or 100,
    # To make an example smaller takes many minutes.
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
    deadline=None,
    # The same examples each time in the suite; others with `nox -s properties`.
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(shape=shapes(), crashes=CRASHES)
# What was cancelled under asyncio before it began.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(7200 if EXAMPLES else 600)
def test_any_workflow_with_any_crashes_returns_what_asyncio_returns(virtual, shape, crashes):
    """Every crash loses all that is in memory, every second kind the snapshots as well."""
    expected = plain(shape)
    coming = iter(crashes)
    found = virtual.run(shape, f"x{next(numbers)}", lambda: next(coming, ""))
    assert _as_lists(found) == _as_lists(expected)


def _as_lists(value):
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value

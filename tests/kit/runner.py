"""Runs promises of the kit without pytest: what they say about an executor, in milliseconds."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from pathlib import Path

import pytest

from durable_monty.testing import ExecutorSuite
from durable_monty.testing.executors.driver import Driver
from kit.reference import Machine

PROMISES = [name for name in dir(ExecutorSuite) if name.startswith("test_")]


def complaint(suite_class, promise):
    """What the promise says if it is broken, or None."""
    for arguments in _parameters(getattr(suite_class, promise)):
        with tempfile.TemporaryDirectory() as folder:
            machine = Machine(Path(folder))
            try:
                _run(suite_class, promise, folder, arguments)
            except (AssertionError, pytest.fail.Exception) as error:
                return str(error)
            finally:
                machine.close()
    return None


def _run(suite_class, promise, folder, arguments):
    suite = suite_class()
    suite.folder = folder
    executor = suite._executor = suite.build()
    available = {
        "executor": lambda: executor,
        "kit": lambda: drivers.enter_context(_stopped(Driver(executor, suite.patience_seconds))),
        "other": lambda: drivers.enter_context(_stopped(Driver(suite.make_executor(), suite.patience_seconds))),
        "can": lambda: executor.capabilities,
    }
    method = getattr(suite, promise)
    with contextlib.ExitStack() as drivers:
        wanted = [name for name in inspect.signature(method).parameters if name not in arguments]
        method(**{name: available[name]() for name in wanted}, **arguments)


@contextlib.contextmanager
def _stopped(driver):
    yield driver
    driver.stop()


def _parameters(method):
    marks = [mark for mark in getattr(method, "pytestmark", []) if mark.name == "parametrize"]
    return [{mark.args[0]: value} for mark in marks for value in mark.args[1]] or [{}]

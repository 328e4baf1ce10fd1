"""Promises about settings, hooks, secrets, and what an executor says about itself."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from durable_monty.hookspecs import HOOKS, INTERFACE_VERSION, OLDEST_INTERFACE_VERSION, PROJECT
from durable_monty.models import Capabilities
from durable_monty.testing import functions
from durable_monty.testing.executors.driver import Driver, make_call
from durable_monty.testing.executors.time import Time

_SECRET_NAME = re.compile(r"(password|secret|token|signing_key|api_key)(?!\w*_env$)", re.IGNORECASE)
_SECRET = "kit-secret-d1c4"  # noqa: S105 - nobody's
_FORBIDDEN_MODULES = ("sqlalchemy", "alembic", "pydantic_monty", "durable_monty.store", "pytest")


class AboutItself(Time):
    """What holds for the class, its settings, and what it tells people."""

    def test_it_has_a_settings_model(self, executor: Any) -> None:
        settings = getattr(type(executor), "Settings", None)
        assert isinstance(settings, type) and issubclass(settings, BaseModel), (  # noqa: PT018 - one fact
            f"{type(executor).__name__}.Settings is {settings!r}; it must be a pydantic model"
        )

    def test_an_unknown_setting_is_refused(self, executor: Any) -> None:
        """A misspelt key that is silently ignored costs its user an afternoon."""
        model = _model(executor)
        if model is None:
            return  # another promise says so
        try:
            model(no_such_setting_of_anybody=1)
        except ValidationError as error:
            kinds = {item["type"] for item in error.errors()}
        else:
            kinds = set()
        assert "extra_forbidden" in kinds, (
            'an unknown setting is accepted; give the model `model_config = ConfigDict(extra="forbid")`'
        )

    def test_every_setting_has_a_description(self, executor: Any) -> None:
        """It is what `durable-monty config schema` and editors show."""
        fields = _fields(executor)
        bare = sorted(name for name, field in fields.items() if not field.description)
        assert not bare, f"these settings have no description: {', '.join(bare)}; write Field(..., description=...)"

    def test_secrets_are_secret_in_the_settings(self, executor: Any) -> None:
        fields = _fields(executor)
        named = {name: field for name, field in fields.items() if _SECRET_NAME.search(name)}
        open_ = sorted(name for name, field in named.items() if "SecretStr" not in str(field.annotation) and field.repr)
        assert not open_, f"these settings look like secrets and are shown in repr: {', '.join(open_)}; use SecretStr"

    def test_no_repr_shows_a_secret(self, executor: Any) -> None:
        names = [name for name, field in _fields(executor).items() if "SecretStr" in str(field.annotation)]
        settings = getattr(executor, "settings", None)
        if isinstance(settings, BaseModel):
            settings = settings.model_copy(update={name: SecretStr(_SECRET) for name in names})
        made = type(executor)(settings) if isinstance(settings, BaseModel) else executor
        shown = [text for text in (repr(settings), str(settings), repr(made), str(made)) if _SECRET in text]
        assert not shown, f"a secret is shown: {shown[0]}"

    def test_neither_values_nor_secrets_are_logged(self, kit: Driver) -> None:
        """Arguments and results belong to the user; they may be secrets."""
        names = ("durable_monty", type(self._executor).__module__.partition(".")[0])
        handler = _Kept(names)
        # Whatever was set up for the tests around it, everything is to be heard.
        loggers = [logging.getLogger(name) for name in ("", *names)]
        before = [logger.level for logger in loggers]
        loggers[0].addHandler(handler)
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        try:
            kit.run(make_call(functions.echo, _SECRET), make_call(functions.fail, _SECRET))
        finally:
            loggers[0].removeHandler(handler)
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
        told = [line for line in handler.lines if _SECRET in line]
        assert not told, f"a value is logged: {told[0]!r}"

    def test_it_declares_its_capabilities(self, executor: Any) -> None:
        declared = getattr(executor, "capabilities", None)
        assert isinstance(declared, Capabilities), (
            f"{type(executor).__name__}.capabilities is {declared!r}; write `capabilities = Capabilities(...)`"
        )
        assert declared.max_batch >= 1, f"max_batch is {declared.max_batch}; at least 1 call is handed over"
        assert declared.poll_interval_seconds >= 0, (
            f"poll_interval_seconds is {declared.poll_interval_seconds}; it is a pause, so at least 0"
        )
        assert declared.start_delay_seconds >= 0, (
            f"start_delay_seconds is {declared.start_delay_seconds}; a job waits for at least 0 s before it begins"
        )
        assert declared.keeps_results_seconds is None or declared.keeps_results_seconds > 0, (
            f"keeps_results_seconds is {declared.keeps_results_seconds}; a result is kept for a while, or None says for ever"
        )

    def test_it_was_written_for_an_interface_that_this_core_has(self, executor: Any) -> None:
        declared = getattr(executor, "interface_version", None)
        assert isinstance(declared, int) and not isinstance(declared, bool), (  # noqa: PT018 - one fact
            f"{type(executor).__name__}.interface_version is {declared!r}; write `interface_version = {INTERFACE_VERSION}`"
        )
        assert OLDEST_INTERFACE_VERSION <= declared <= INTERFACE_VERSION, (
            f"it was written for interface version {declared}; this core has {INTERFACE_VERSION}"
        )

    def test_every_method_with_the_name_of_a_hook_is_one(self, executor: Any) -> None:
        """Without the marker the core never calls it, and nobody says so."""
        bare = [
            name
            for name in HOOKS
            if callable(method := getattr(type(executor), name, None)) and not hasattr(method, f"{PROJECT}_impl")
        ]
        assert not bare, f"these methods have the name of a hook and are not marked with @hookimpl: {', '.join(bare)}"

    def test_check_finds_nothing_wrong_with_a_back_end_that_works(self, executor: Any, kit: Driver) -> None:
        """It is asked without `start`, possibly on a machine that runs no worker."""
        from durable_monty import plugins

        findings = plugins.wrap(self.make_executor(), "kit").check()
        errors = [finding for finding in findings if finding.level == "error"]
        assert not errors, f"calls work, and check says: {errors[0].message}"

    def test_check_says_what_is_wrong_with_a_back_end_that_is_away(self) -> None:
        away = self._unreachable()
        if away is None:
            return
        from durable_monty import plugins

        errors = [item for item in plugins.wrap(away.implementation, "kit").check() if item.level == "error"]
        assert errors, "its back end is away, and check finds no error"
        assert all(item.remedy for item in errors), f"check does not say what to do: {errors[0]!r}"

    def test_stats_are_numbers_by_name(self, kit: Driver) -> None:
        kit.run(make_call(functions.echo, 1))
        stats = kit.executor.stats() if kit.executor.has("stats") else {}
        wrong = {name: value for name, value in stats.items() if not isinstance(value, int | float)}
        assert not wrong, f"stats are numbers, not {wrong!r}"

    def test_importing_it_is_light(self, executor: Any) -> None:
        """Every command that lists or checks executors imports it: no thread, no database, no sandbox."""
        name = type(executor).__module__
        file = getattr(sys.modules.get(name), "__file__", "")
        code = (
            "import sys, threading, importlib.util\n"
            f"sys.path[:] = {sys.path!r}\n"
            "try:\n"
            f"    __import__({name!r})\n"
            "except ImportError:\n"
            f"    spec = importlib.util.spec_from_file_location({name!r}, {file!r})\n"
            "    module = importlib.util.module_from_spec(spec)\n"
            f"    sys.modules[{name!r}] = module\n"
            "    spec.loader.exec_module(module)\n"
            f"found = [name for name in {_FORBIDDEN_MODULES!r} if name in sys.modules]\n"
            "print(*found, *(f'thread {item.name}' for item in threading.enumerate()[1:]), sep=', ')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
        )
        assert done.returncode == 0, f"importing {name!r} in a fresh process failed: {done.stderr[-1000:]}"
        assert not done.stdout.strip(), f"importing {name!r} starts or imports too much: {done.stdout.strip()}"

    def test_no_promise_is_overridden_without_a_reason(self) -> None:
        """A suite that was made weaker says so, and why: `@pytest.mark.xfail(reason="...")`."""
        from durable_monty.testing.executors.suite import ExecutorSuite

        quiet = [
            name
            for name in dir(ExecutorSuite)
            if name.startswith("test_")
            and getattr(type(self), name, None) is not getattr(ExecutorSuite, name)
            and not _has_reason(getattr(type(self), name, None))
        ]
        assert not quiet, (
            f"{type(self).__name__} overrides promises without a reason: {', '.join(quiet)}; "
            'mark each with @pytest.mark.xfail(reason="..."), or take the override away'
        )


def _model(executor: Any) -> type[BaseModel] | None:
    settings = getattr(type(executor), "Settings", None)
    return settings if isinstance(settings, type) and issubclass(settings, BaseModel) else None


def _fields(executor: Any) -> dict[str, FieldInfo]:
    model = _model(executor)
    return dict(model.model_fields) if model is not None else {}


class _Kept(logging.Handler):
    """Keeps what these packages log; what libraries log while they are debugged is their own affair, and is much."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        super().__init__(logging.DEBUG)
        self._packages = packages
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(self._packages):
            self.lines.append(f"{record.getMessage()} {vars(record)}")


def _has_reason(method: Any) -> bool:
    marks: list[pytest.Mark] = getattr(method, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)

"""An executor in a process that is killed: it submits calls, and dies before or after it could tell of the answers.

python -m durable_monty.testing.other_process        a request as JSON on stdin, answers as JSON on stdout
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from durable_monty.models import Accepted, Call

_FIELDS = ("job_id", "execution_id", "call_id", "attempt", "function_name", "arguments", "timeout_seconds")


def submit_and_die(executor: Any, calls: Sequence[Call], suite: type | None = None) -> dict[str, str | None]:
    """Submit calls from another process, which is killed right after.

    Args:
        executor: The process makes another of the same class and settings.
        suite: The process calls `suite().make_executor()` instead.

    Returns:
        By job id, the token of each call that was accepted.
    """
    request = {
        "path": sys.path,
        "maker": _place(suite or type(executor)),
        "is_suite": suite is not None,
        "settings": None if suite else settings_values(executor),
        "calls": [
            {**{name: getattr(call, name) for name in _FIELDS}, "envelope": call.envelope.decode()} for call in calls
        ],
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(request, default=_revealed).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, (
        f"an executor of the same class and settings could not be made in another process: "
        f"{done.stderr.decode(errors='replace')[-2000:]}"
    )
    tokens: dict[str, str | None] = json.loads(done.stdout)
    return tokens


def settings_values(executor: Any) -> dict[str, Any]:
    """The settings that an executor was made with."""
    settings = getattr(executor, "settings", None)
    assert settings is not None, (
        f"the kit makes a second {type(executor).__name__} with the settings of the first: "
        "keep them as `self.settings`, or override `make_executor` in the suite"
    )
    values: dict[str, Any] = settings.model_dump()
    return values


def _revealed(value: Any) -> Any:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)


def _place(kind: type) -> dict[str, Any]:
    module = sys.modules[kind.__module__]
    return {"module": kind.__module__, "file": getattr(module, "__file__", None), "name": kind.__qualname__}


def _found(place: dict[str, Any]) -> Any:
    """The class; a test's module may be known by its file only."""
    try:
        module = importlib.import_module(place["module"])
    except ImportError:
        spec = importlib.util.spec_from_file_location(place["module"], Path(place["file"]))
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[place["module"]] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found: Any = module
    for name in place["name"].split("."):
        found = getattr(found, name)
    return found


def _main() -> None:
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    from durable_monty import plugins
    from durable_monty.hookspecs import ExecutorContext

    maker = _found(request["maker"])
    implementation = maker().make_executor() if request["is_suite"] else maker(maker.Settings(**request["settings"]))
    executor = plugins.wrap(implementation, "kit")
    executor.start(ExecutorContext("kit", lambda outcomes: None, logging.getLogger("durable_monty.executors.kit")))
    calls = [Call(**{**fields, "envelope": fields["envelope"].encode()}) for fields in request["calls"]]
    answers = executor.submit(calls)
    json.dump({answer.job_id: answer.token for answer in answers if isinstance(answer, Accepted)}, sys.stdout)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main()

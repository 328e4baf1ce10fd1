"""The hooks: each is one `ssh` command, whatever the number of jobs."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from durable_monty.hookspecs import hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Failure, Finding, Job, Outcome, Refused

_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 120
_MAX_WAIT_SECONDS = 2.0  # not longer: a poll that waits does not hear of `stop`


class SSHSettings(BaseModel):
    """Table `[executors.ssh]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1, description="What you would type after `ssh`.")
    options: list[str] = Field(default_factory=list, description="Further arguments of `ssh`.")
    python: str = Field("python3", description="The interpreter on the host.")
    directory: str = Field(".", description="Where functions run, from the home folder; on their import path.")
    folder: str = Field(".durable-monty-ssh", description="Where the host keeps jobs; one for each database.")
    max_in_flight: PositiveInt = Field(32, description="Most jobs on the host at once.")


class Executor:
    """Runs calls on another machine."""

    Settings = SSHSettings
    interface_version = 1

    def __init__(self, settings: SSHSettings) -> None:
        self.settings = settings
        self.capabilities = Capabilities(
            caller_ids=True,
            can_find=True,
            cancel=True,
            survives_restart=True,
            max_batch=200,
            max_in_flight=settings.max_in_flight,
            poll_interval_seconds=0.0,
            isolation="machine",
        )

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Start each call that the host does not have yet."""
        sent = [
            {"job_id": call.job_id, "envelope": call.envelope.decode(), "timeout_seconds": call.timeout_seconds}
            for call in calls
        ]
        self._ask("submit", calls=sent)
        return [Accepted(call.job_id) for call in calls]

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome]:
        """Outcomes; the host waits for the first."""
        found = self._ask("poll", job_ids=_ids(jobs), wait_seconds=min(wait_seconds, _MAX_WAIT_SECONDS))
        return [_outcome(job_id, news) for job_id, news in found.items()]

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None:
        """Remove the jobs' folders."""
        self._ask("complete", job_ids=_ids(jobs))

    @hookimpl
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """Kill jobs; every job runs at once, so without `force` there is nothing to do."""
        return self._ask("cancel", job_ids=_ids(jobs)) if force else {}

    @hookimpl
    def find(self, jobs: Sequence[Job]) -> dict[str, Literal["known", "absent", "unknown"]]:
        """Whether the host has the jobs."""
        known = self._ask("find", job_ids=_ids(jobs))
        return {key: "known" if key in known else "absent" for key in _ids(jobs)}

    @hookimpl
    def check(self) -> list[Finding]:
        """Whether the host answers, and what it has."""
        try:
            found = self._ask("check")
        except ConnectionError as error:
            return [Finding("error", str(error), f"try `ssh {self.settings.host} true`, and set host and options")]
        except RuntimeError as error:
            remedy = f"run `{self.settings.python} -m pip install --no-deps durable-monty-core durable-monty-ssh` there"
            return [Finding("error", str(error), remedy)]
        return [
            Finding("info", f"{self.settings.host} has durable-monty-core {found['core']}, Python {found['python']}")
        ]

    def _ask(self, verb: str, **arguments: Any) -> Any:
        """The host's answer; ConnectionError if it cannot be reached, RuntimeError if it cannot do what is asked."""
        settings = self.settings
        remote = f"cd {shlex.quote(settings.directory)} && {shlex.quote(settings.python)} -m durable_monty_ssh.host"
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}", *settings.options]
        request = json.dumps({"verb": verb, "folder": settings.folder, "arguments": arguments})
        try:
            done = subprocess.run(
                ["ssh", *options, settings.host, remote],
                input=request, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConnectionError(f"asking {settings.host} to {verb}: {error}") from error
        if done.returncode == 255:
            raise ConnectionError(f"asking {settings.host} to {verb}: ssh says {done.stderr.strip()!r}")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RuntimeError(f"asking {settings.host} to {verb}: {settings.python} there says {last!r}")
        return json.loads(done.stdout)


def _ids(jobs: Sequence[Job]) -> list[str]:
    return [job.job_id for job in jobs]


def _outcome(job_id: str, news: dict[str, str]) -> Outcome:
    if "reply" in news:
        return Outcome(job_id, reply=news["reply"].encode())
    kind: Any = news["kind"]
    return Outcome(job_id, failure=Failure(kind, {"timeout": "TimeoutError"}.get(kind, "Lost"), news["message"]))

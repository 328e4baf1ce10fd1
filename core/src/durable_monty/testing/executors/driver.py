"""One executor, driven as the core drives it: batches, slices, tokens, outcomes from `poll` and from `deliver`."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from durable_monty import codec, plugins, remote
from durable_monty.envelope import encode_envelope
from durable_monty.functions import Function
from durable_monty.hookspecs import ExecutorContext
from durable_monty.loaded import LoadedExecutor
from durable_monty.models import Accepted, Call, Heartbeat, Job, Outcome, Refused, job_id_of

_POLL_SECONDS = 0.2


def make_call(
    function: Function[Any],
    *args: Any,
    execution_id: str | None = None,
    call_id: int = 0,
    attempt: int = 1,
    timeout_seconds: float | None = None,
) -> Call:
    """A call as the core makes it, of an execution of its own unless one is named."""
    execution_id = execution_id or f"kit-{uuid.uuid4().hex[:12]}"
    key = job_id_of(execution_id, call_id, attempt)
    arguments = codec.dumps([list(args), {}])
    envelope = encode_envelope(key, function.path, arguments, remote.signing_key())
    return Call(key, execution_id, call_id, attempt, function.path, arguments, envelope, timeout_seconds)


class Driver:
    """Drives one executor.

    Args:
        patience_seconds: How long to wait for what must come about.
    """

    def __init__(self, implementation: Any, patience_seconds: float) -> None:
        self.implementation = implementation
        self.patience_seconds = patience_seconds
        self.outcomes: dict[str, list[Outcome]] = defaultdict(list)
        """By job id, every outcome that was told, the oldest first."""
        self._tokens: dict[str, str | None] = {}
        self._lock = threading.Lock()
        self.is_started = False

    @cached_property
    def executor(self) -> LoadedExecutor:
        """It, started."""
        loaded = plugins.wrap(self.implementation, "kit")
        loaded.start(
            ExecutorContext(
                "kit",
                self._take,
                logging.getLogger("durable_monty.executors.kit"),
                is_signed=remote.signing_key() is not None,
            )
        )
        self.is_started = True
        return loaded

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Stop it, if it was started."""
        if self.is_started:
            self.is_started = False
            self.executor.stop(grace_seconds)

    def submit(self, calls: Sequence[Call]) -> dict[str, Accepted | Refused]:
        """Submit in batches of at most `max_batch`; the answers by job id."""
        found: dict[str, Accepted | Refused] = {}
        for batch in self._batches(calls):
            answers = self._asked("submit", self.executor.submit, batch)
            ids = sorted(answer.job_id for answer in answers)
            assert ids == sorted(call.job_id for call in batch), (
                f"submit was given {len(batch)} calls and answered for {len(ids)}; it must answer once for each call"
            )
            found |= {answer.job_id: answer for answer in answers}
        self._tokens |= {key: answer.token for key, answer in found.items() if isinstance(answer, Accepted)}
        return found

    def start_calls(self, *calls: Call) -> list[Job]:
        """Submit calls, again where they are refused for now; their jobs."""
        ends_at = time.monotonic() + self.patience_seconds
        waiting = list(calls)
        while waiting:
            answers = self.submit(waiting)
            refused = [answer for answer in answers.values() if isinstance(answer, Refused)]
            for answer in refused:
                assert answer.retry_after_seconds is not None, f"a call was refused for good: {answer.reason}"
                assert time.monotonic() < ends_at, f"a call was refused again and again: {answer.reason}"
            waiting = [call for call in waiting if isinstance(answers[call.job_id], Refused)]
            time.sleep(max((answer.retry_after_seconds or 0 for answer in refused), default=0))
        return [self.job(call) for call in calls]

    def job(self, call: Call) -> Job:
        """The job of a call, its token carried through JSON as the database carries it."""
        token = json.loads(json.dumps(self._tokens.get(call.job_id)))
        return Job(call.job_id, token)

    def poll(self, jobs: Sequence[Job], wait_seconds: float = 0.0) -> list[Outcome]:
        """Poll once for at most `max_batch` jobs; remembers what was told."""
        told: list[Outcome | Heartbeat] = self._asked("poll", self.executor.poll, jobs, wait_seconds)
        self._take(told)
        return [item for item in told if isinstance(item, Outcome)]

    def collect(self, jobs: Iterable[Job], *, is_completing: bool = False) -> dict[str, Outcome]:
        """The first outcome of each job; waits for them.

        Args:
            is_completing: Complete each job as soon as its outcome is there, as the core does; an executor may hold
                further calls back until it has heard that outcomes are durable.

        Raises:
            AssertionError: One did not come in time.
        """
        missing = wanted = list(jobs)
        ends_at = time.monotonic() + self.patience_seconds
        while True:
            ended = {job.job_id for job in missing if self.outcomes.get(job.job_id)}
            if is_completing and ended:
                self.complete([job for job in missing if job.job_id in ended])
            missing = [job for job in missing if job.job_id not in ended]
            if not missing:
                return {job.job_id: self.outcomes[job.job_id][0] for job in wanted}
            assert time.monotonic() < ends_at, (
                f"no outcome of {len(missing)} of {len(wanted)} jobs within {self.patience_seconds:g} s, "
                f"the first of them {missing[0].job_id!r}"
            )
            for batch in self._batches(missing):
                if not self.poll(batch, _POLL_SECONDS) and not self.outcomes.get(batch[0].job_id):
                    time.sleep(max(min(self.executor.capabilities.poll_interval_seconds, _POLL_SECONDS), 0))

    def run(self, *calls: Call) -> list[remote.ReadReply]:
        """Submit calls and wait for them: for each its value or failure, in order. They are completed."""
        return self.finish(self.start_calls(*calls))

    def finish(self, jobs: Sequence[Job]) -> list[remote.ReadReply]:
        """Wait for jobs: for each its value or failure, in order. They are completed."""
        found = self.collect(jobs, is_completing=True)
        return [read(found[job.job_id]) for job in jobs]

    def complete(self, jobs: Sequence[Job]) -> None:
        """Complete in batches of at most `max_batch`."""
        for batch in self._batches(jobs):
            self._asked("complete", self.executor.complete, batch)

    def runs(self, key: str) -> list[str]:
        """What the kit's functions noted under a key, as the remote side tells it."""
        from durable_monty.testing import functions

        (reply,) = self.run(make_call(functions.notes, key))
        assert reply.failure is None, f"reading the kit's notes failed: {reply.failure}"
        return list(reply.value)

    def _asked(self, hook: str, ask: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return ask(*arguments)
        except Exception as error:
            raise AssertionError(f"{hook} raised {error!r}, although its back end is there") from error

    def _batches(self, items: Sequence[Any]) -> Iterable[Sequence[Any]]:
        size = self.executor.capabilities.max_batch
        return (items[start : start + size] for start in range(0, len(items), size))

    def _take(self, told: Sequence[Outcome | Heartbeat]) -> None:
        with self._lock:
            for item in told:
                if isinstance(item, Outcome):
                    self.outcomes[item.job_id].append(item)


def read(outcome: Outcome) -> remote.ReadReply:
    """An outcome's value or failure, whoever reports it."""
    if outcome.failure is not None:
        return remote.ReadReply(outcome.job_id, None, outcome.failure)
    assert outcome.reply is not None
    return remote.read_reply(outcome.reply)


def tokens_of(jobs: Mapping[str, str | None]) -> list[Job]:
    """Jobs by id and token."""
    return [Job(key, token) for key, token in jobs.items()]

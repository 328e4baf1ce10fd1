"""The executor: what the hooks do, in terms of invocations, the results queue and durable executions."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from durable_monty.hookspecs import ExecutorContext, hookimpl
from durable_monty.models import Accepted, Call, Capabilities, Failure, Finding, Job, Outcome, Refused
from durable_monty_lambda.clients import Clients
from durable_monty_lambda.durable import DurableExecutions
from durable_monty_lambda.invoking import Invoker, Token, Unreachable
from durable_monty_lambda.payloads import Payloads
from durable_monty_lambda.results import Results
from durable_monty_lambda.settings import LambdaSettings

log = logging.getLogger(__name__)

_KEPT_SECONDS = 14 * 24 * 3600.0
_AGAIN_SECONDS = 1.0


class Executor:
    """Runs calls in AWS Lambda."""

    Settings = LambdaSettings
    interface_version = 1
    capabilities = Capabilities(
        survives_restart=True,
        keeps_results_seconds=_KEPT_SECONDS,
        max_batch=200,
        max_in_flight=1000,
        poll_interval_seconds=0.0,
        isolation="machine",
    )

    def __init__(self, settings: LambdaSettings) -> None:
        self.settings = settings
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            max_in_flight=settings.max_in_flight,
            caller_ids=settings.durable,
            can_find=settings.durable,
            # An event that has waited for longer is dropped, and a record tells of it. Of a durable function the core
            # keeps the time limit itself: its code runs in a thread, which nothing there interrupts.
            start_delay_seconds=0.0 if settings.durable else settings.event_age_seconds,
            cancel=settings.durable,
            poll_interval_seconds=settings.durable_poll_seconds if settings.durable else 0.0,
        )
        self._log = log
        self._clients = Clients(settings)
        self._pool = ThreadPoolExecutor(settings.invoke_threads, thread_name_prefix="lambda")
        # Reading has threads of its own: a batch that is being submitted must not keep outcomes waiting.
        self._readers = ThreadPoolExecutor(min(settings.invoke_threads, 8), thread_name_prefix="lambda-results")
        payloads = Payloads(self._clients, settings)
        self._payloads = payloads
        self._invoker = Invoker(self._clients, settings, payloads)
        self._results = Results(self._clients, settings, payloads, self._readers)
        self._executions = DurableExecutions(self._clients, settings, payloads, self._invoker.find, self._readers)
        # Jobs without a token are as old as we know them.
        self._seen_at: dict[str, float] = {}
        self._counts = {"accepted": 0, "refused": 0}

    @hookimpl
    def start(self, context: ExecutorContext) -> None:
        """Make the clients; nothing is sent yet.

        Raises:
            ValueError: Envelopes are signed, and the handler of `event_format = "plain"` signs no reply.
        """
        self._log = context.logger
        if context.is_signed and self.settings.event_format == "plain":
            raise ValueError('a signing key is configured, and event_format = "plain" has no signatures; choose one')
        _ = self._clients.invoking, self._clients.functions

    @hookimpl
    def stop(self, grace_seconds: float) -> None:
        """Let go; events and records stay where they are."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._clients.close()

    @hookimpl
    def submit(self, calls: Sequence[Call]) -> list[Accepted | Refused]:
        """Invoke the function once for each call, as many at a time as there are threads.

        Raises:
            Unreachable: Nothing has reached AWS.
        """
        _ = self._clients.invoking
        answers = list(self._pool.map(self._invoker.submit, calls))
        unreachable = [answer for answer in answers if isinstance(answer, Unreachable)]
        if unreachable and len(unreachable) == len(answers):
            raise unreachable[0]
        result: list[Accepted | Refused] = []
        for call, answer in zip(calls, answers, strict=True):
            if isinstance(answer, Unreachable):
                result.append(Refused(call.job_id, str(answer), _AGAIN_SECONDS))
            else:
                result.append(answer)
        accepted = sum(isinstance(answer, Accepted) for answer in result)
        self._counts["accepted"] += accepted
        self._counts["refused"] += len(result) - accepted
        return result

    @hookimpl
    def poll(self, jobs: Sequence[Job], wait_seconds: float) -> list[Outcome]:
        """Records from the queue, or ended durable executions; and jobs that are overdue."""
        if self.settings.durable:
            return self._executions.read(jobs)
        outcomes = self._results.read(wait_seconds)
        told = {outcome.job_id for outcome in outcomes}
        return outcomes + self._overdue([job for job in jobs if job.job_id not in told])

    @hookimpl
    def complete(self, jobs: Sequence[Job]) -> None:
        """Delete records and what is in S3."""
        for job in jobs:
            self._seen_at.pop(job.job_id, None)
        if not self.settings.durable:
            self._results.delete(job.job_id for job in jobs)
        elif self.settings.payload_bucket is not None:
            pointers = [self._payloads.pointer(job.job_id, what) for job in jobs for what in ("request", "reply")]
            self._payloads.delete(pointer for pointer in pointers if pointer is not None)

    @hookimpl
    def cancel(self, jobs: Sequence[Job], force: bool) -> dict[str, bool]:
        """Stop durable executions. What is queued or runs as an ordinary event goes on: Lambda cannot stop it."""
        if not self.settings.durable:
            return {job.job_id: False for job in jobs}
        return self._executions.stop(jobs)

    @hookimpl
    def find(self, jobs: Sequence[Job]) -> dict[str, Literal["known", "absent", "unknown"]]:
        """Ask by name where executions have names; else what `in_doubt` says: wait for a record, or submit again."""
        if not self.settings.durable:
            return {job.job_id: "known" if self.settings.in_doubt == "wait" else "unknown" for job in jobs}
        found = self._readers.map(lambda job: self._invoker.find(job.job_id), jobs)
        return {job.job_id: "known" if arn else "absent" for job, arn in zip(jobs, found, strict=True)}

    @hookimpl
    def check(self) -> list[Finding]:
        """Credentials, function, queue, destinations, retries, and what the function has installed."""
        from durable_monty_lambda.checks import Check

        try:
            return Check(self._clients, self.settings).run()
        finally:
            self._clients.close()

    @hookimpl
    def stats(self) -> dict[str, int | float]:
        """Calls accepted and refused by this process; records that it has read and not deleted."""
        return {**self._counts, "unfinished_records": self._results.unfinished}

    def _overdue(self, jobs: Sequence[Job]) -> list[Outcome]:
        now = time.time()
        lost_seconds = self.settings.lost_seconds
        outcomes = []
        for job in jobs:
            token = Token.read(job.token)
            sent_at = token.sent_at if token is not None else self._seen_at.setdefault(job.job_id, now)
            overdue_at = sent_at + lost_seconds
            if now > overdue_at and not self._results.may_hold(sent_at, overdue_at):
                doubt = "" if token is None or token.name else ", and Lambda did not say that it took the event"
                text = f"no record of it came within {lost_seconds:.0f} s{doubt}"
                outcomes.append(Outcome(job.job_id, failure=Failure("lost", "Lost", text)))
        return outcomes


class LambdaExecutor(Executor):
    """The Lambda executor for scripts: `LambdaExecutor("my-function", results_queue_url="https://sqs...")`.

    Args:
        function_name: Name or ARN of the Lambda function.
        settings: The other fields of `LambdaSettings`.
    """

    def __init__(self, function_name: str, **settings: Any) -> None:
        super().__init__(LambdaSettings(function_name=function_name, **settings))

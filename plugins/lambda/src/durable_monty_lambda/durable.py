"""The durable mode: executions that are read and stopped by their ARN, without a queue."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from durable_monty.models import Failure, Job, Outcome
from durable_monty_lambda.clients import MISSING, THROTTLED, Clients, code_of, status_of
from durable_monty_lambda.events import Pointer
from durable_monty_lambda.invoking import Token, execution_name
from durable_monty_lambda.payloads import Payloads
from durable_monty_lambda.records import read_answer, read_error
from durable_monty_lambda.settings import LambdaSettings

log = logging.getLogger(__name__)

_PAGE = 1000
_ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "STOPPED")


class DurableExecutions:
    """Reads durable executions, sparingly: the API has a small quota of requests a second.

    Args:
        find: Gives the ARN of the execution of a job, or None.
        pool: Where requests run that can be made at the same time.
    """

    def __init__(
        self,
        clients: Clients,
        settings: LambdaSettings,
        payloads: Payloads,
        find: Callable[[str], str | None],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._find = find
        self._clients = clients
        self._settings = settings
        self._payloads = payloads
        self._pool = pool

    def read(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Outcomes of those jobs whose executions have ended; at most `durable_reads_per_poll` of them.

        One listing of what runs tells which executions are worth a request of their own.

        Raises:
            BotoCoreError, ClientError: Lambda does not answer, or refuses.
        """
        named = {token.name: job for job in jobs if (token := Token.read(job.token)) is not None and token.name}
        most = self._settings.durable_reads_per_poll
        if len(named) > most:
            running = self._running()
            named = {arn: job for arn, job in named.items() if arn not in running}
        chosen = list(named.items())[:most]
        nameless = [job.job_id for job in jobs if (token := Token.read(job.token)) is None or not token.name]
        read = [self._pool.submit(self._read, job.job_id, arn) for arn, job in chosen]
        read += [self._pool.submit(self._read_by_name, job_id) for job_id in nameless[: most - len(chosen)]]
        return [outcome for future in read if (outcome := future.result()) is not None]

    def stop(self, jobs: Sequence[Job]) -> dict[str, bool]:
        """Stop the executions of these jobs; by job id, whether it has ended or will."""
        return dict(self._pool.map(self._stop, jobs))

    def _running(self) -> set[str]:
        options: dict[str, Any] = {**self._settings.named, "Statuses": ["RUNNING"]}
        found: set[str] = set()
        while True:
            answer = self._clients.functions.list_durable_executions_by_function(MaxItems=_PAGE, **options)
            listed = answer.get("DurableExecutions", ())
            # AWS' own local runner lists those that have ended too.
            found.update(item["DurableExecutionArn"] for item in listed if item.get("Status", "RUNNING") == "RUNNING")
            marker = answer.get("NextMarker")
            if not marker:
                return found
            options["Marker"] = marker

    def _read_by_name(self, job_id: str) -> Outcome | None:
        """The outcome of a job whose ARN was never stored."""
        arn = self._find(job_id)
        if arn is None:
            text = f"Lambda knows no durable execution of the name {execution_name(job_id)!r}"
            return Outcome(job_id, failure=Failure("lost", "Lost", text))
        return self._read(job_id, arn)

    def _read(self, job_id: str, arn: str) -> Outcome | None:
        try:
            answer = self._clients.functions.get_durable_execution(DurableExecutionArn=arn)
        except ClientError as error:
            if code_of(error) in MISSING or status_of(error) == 404:
                text = f"Lambda has no durable execution {arn} any more"
                return Outcome(job_id, failure=Failure("lost", "Lost", text))
            if code_of(error) in THROTTLED:
                return None
            raise
        if answer["Status"] not in _ENDED:
            return None
        return self._outcome(job_id, answer)

    def _outcome(self, job_id: str, answer: dict[str, Any]) -> Outcome:
        status, error = answer["Status"], answer.get("Error") or {}
        message = str(error.get("ErrorMessage") or "")
        if status == "STOPPED":
            failure = Failure("cancelled", "Cancelled", message or "the durable execution was stopped")
            return Outcome(job_id, failure=failure)
        if status == "TIMED_OUT":
            text = message or "the durable execution ran longer than its ExecutionTimeout"
            return Outcome(job_id, failure=Failure("timeout", "TimeoutError", text))
        if status == "FAILED":
            failure = read_error(str(error.get("ErrorType") or ""), message, error.get("StackTrace"))
            return Outcome(job_id, failure=failure)
        end = read_answer(job_id, _parsed(answer.get("Result")))
        if isinstance(end, Pointer):
            return self._payloads.outcome(job_id, end)
        return Outcome(job_id, failure=end) if isinstance(end, Failure) else Outcome(job_id, reply=end)

    def _stop(self, job: Job) -> tuple[str, bool]:
        token = Token.read(job.token)
        if token is None or not token.name:
            return job.job_id, False
        try:
            self._clients.functions.stop_durable_execution(
                DurableExecutionArn=token.name,
                Error={"ErrorType": "Cancelled", "ErrorMessage": "cancelled by durable-monty"},
            )
        except ClientError as error:
            # Gone, or ended: there is nothing to stop.
            return job.job_id, code_of(error) in MISSING or status_of(error) in (404, 409)
        except BotoCoreError as error:
            log.warning("stopping a durable execution failed: %s", error, extra={"job_id": job.job_id})
            return job.job_id, False
        return job.job_id, True


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return text

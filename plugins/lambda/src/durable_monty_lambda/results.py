"""The results queue: records read in batches, kept apart by job until they may be deleted."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from durable_monty.models import Failure, Outcome
from durable_monty_lambda.clients import Clients
from durable_monty_lambda.events import Pointer
from durable_monty_lambda.payloads import Payloads
from durable_monty_lambda.records import Record, read_record
from durable_monty_lambda.settings import LambdaSettings

log = logging.getLogger(__name__)

BATCH = 10
"""Messages in one receive or delete: SQS takes no more."""
RECEIVERS = 4
MAX_OUTCOMES = 500
_MAX_WAIT_SECONDS = 20


class QueueError(Exception):
    """SQS did not delete some records; they are deleted again later."""


class Results:
    """Reads records and deletes those whose outcomes are durable.

    Args:
        pool: Where requests run that can be made at the same time.
    """

    def __init__(
        self, clients: Clients, settings: LambdaSettings, payloads: Payloads, pool: ThreadPoolExecutor
    ) -> None:
        self._clients = clients
        self._settings = settings
        self._payloads = payloads
        self._pool = pool
        self._lock = threading.Lock()
        # By job and message: a record that is delivered again has a new receipt handle, and only the newest counts.
        self._receipts: dict[str, dict[str, str]] = defaultdict(dict)
        self._objects: dict[str, set[Pointer]] = defaultdict(set)
        self._foreign: set[str] = set()
        self._made_at = time.time()
        self._caught_up_at = 0.0

    @property
    def unfinished(self) -> int:
        """Records that were read and not deleted."""
        with self._lock:
            return sum(len(receipts) for receipts in self._receipts.values())

    def may_hold(self, sent_at: float, overdue_at: float) -> bool:
        """Whether the record of a call may still be in the queue, although it is overdue.

        It may until this process has caught up with the queue. The record of a call that was sent before this process
        began may be hidden as well, because a worker that died had read it; the visibility timeout ends that.
        """
        if self._caught_up_at < overdue_at:
            return True
        return (
            sent_at < self._made_at and self._caught_up_at < self._made_at + self._settings.visibility_timeout_seconds
        )

    def read(self, wait_seconds: float) -> list[Outcome]:
        """The outcomes that have come; waits for the first.

        Raises:
            BotoCoreError, ClientError: SQS does not answer, or refuses.
        """
        began_at = time.time()
        messages = self._receive(min(math.ceil(wait_seconds), _MAX_WAIT_SECONDS))
        full = len(messages) == BATCH
        if not full and wait_seconds:
            # A receive that waits asks every server of the queue.
            self._caught_up_at = began_at
        while full and len(messages) < MAX_OUTCOMES:
            # Where ten were waiting there are more; waiting for them would only delay the others.
            rounds = list(self._pool.map(self._receive_now, range(RECEIVERS)))
            messages += [message for batch in rounds for message in batch]
            full = all(rounds)
        return [outcome for outcome in self._pool.map(self._outcome, messages) if outcome is not None]

    def delete(self, job_ids: Iterable[str]) -> None:
        """Delete the records of these jobs, and what they left in S3; of unknown jobs there is nothing.

        Raises:
            QueueError: SQS kept some.
            BotoCoreError, ClientError: AWS does not answer, or refuses.
        """
        wanted = list(dict.fromkeys(job_ids))
        with self._lock:
            receipts = [item for job_id in wanted for item in self._receipts.get(job_id, {}).items()]
            objects = {pointer for job_id in wanted for pointer in self._objects.get(job_id, ())}
        batches = [receipts[start : start + BATCH] for start in range(0, len(receipts), BATCH)]
        kept = [text for texts in self._pool.map(self._delete, batches) for text in texts]
        if kept:
            raise QueueError(
                f"deleting records from {self._settings.results_queue_url}: SQS kept {len(kept)}: {kept[0]}"
            )
        self._payloads.delete(objects)
        with self._lock:
            for job_id in wanted:
                self._receipts.pop(job_id, None)
                self._objects.pop(job_id, None)

    def _receive_now(self, _number: int) -> list[dict[str, Any]]:
        return self._receive(0)

    def _receive(self, wait_seconds: int) -> list[dict[str, Any]]:
        answer = self._clients.queue.receive_message(
            QueueUrl=self._settings.results_queue_url,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=self._settings.visibility_timeout_seconds,
        )
        return list(answer.get("Messages", ()))

    def _outcome(self, message: dict[str, Any]) -> Outcome | None:
        record = read_record(message["Body"])
        if record is None:
            self._tell_foreign(message["MessageId"])
            return None
        try:
            outcome = self._resolve(record)
        except (BotoCoreError, ClientError) as error:
            # Its record comes again when it is visible again.
            log.warning("reading a reply from S3 failed: %s", error, extra={"job_id": record.job_id})
            return None
        with self._lock:
            self._receipts[record.job_id][message["MessageId"]] = message["ReceiptHandle"]
            self._objects[record.job_id].update(
                pointer for pointer in (record.request, record.end) if isinstance(pointer, Pointer)
            )
        return outcome

    def _resolve(self, record: Record) -> Outcome:
        end = record.end
        if isinstance(end, Failure):
            return Outcome(record.job_id, failure=end)
        if isinstance(end, bytes):
            return Outcome(record.job_id, reply=end)
        return self._payloads.outcome(record.job_id, end)

    def _tell_foreign(self, message_id: str) -> None:
        """Left where it is: it may be somebody's. The queue's own redrive policy moves it away in the end."""
        with self._lock:
            is_new = message_id not in self._foreign
            self._foreign.add(message_id)
        if is_new:
            log.warning(
                "the results queue holds a message that is no record of ours; give each database a queue of its own",
                extra={"message_id": message_id},
            )

    def _delete(self, batch: Sequence[tuple[str, str]]) -> list[str]:
        """Delete these messages; returns what SQS says of those that it kept."""
        entries = [{"Id": str(number), "ReceiptHandle": handle} for number, (_, handle) in enumerate(batch)]
        answer = self._clients.queue.delete_message_batch(QueueUrl=self._settings.results_queue_url, Entries=entries)
        # A receipt handle that SQS does not know any more is of a message that is gone, or that will come again.
        return [str(item.get("Message", item["Code"])) for item in answer.get("Failed", ()) if not item["SenderFault"]]

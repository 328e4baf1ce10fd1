"""Values that are too large for an event, in S3."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from botocore.exceptions import ClientError

from durable_monty.models import Failure, Outcome
from durable_monty_lambda.clients import MISSING, Clients, code_of
from durable_monty_lambda.events import Pointer
from durable_monty_lambda.settings import LambdaSettings

_DELETED_AT_ONCE = 1000


class Payloads:
    """The objects of one bucket that are ours. Without a bucket none is ever written."""

    def __init__(self, clients: Clients, settings: LambdaSettings) -> None:
        self._clients = clients
        self._bucket = settings.payload_bucket
        self._prefix = settings.payload_prefix

    def pointer(self, job_id: str, what: str) -> Pointer | None:
        """Where the `request` or the `reply` of a job lies; None without a bucket."""
        return Pointer(self._bucket, f"{self._prefix}{job_id}/{what}") if self._bucket is not None else None

    def put(self, pointer: Pointer, data: bytes) -> None:
        """Write an object."""
        self._clients.objects.put_object(Bucket=pointer.bucket, Key=pointer.key, Body=data)

    def outcome(self, job_id: str, pointer: Pointer) -> Outcome:
        """The outcome whose reply lies there.

        Only in our own bucket: a record is written by whoever may write to the queue.
        """
        if pointer != self.pointer(job_id, "reply"):
            text = f"its reply is said to be in s3://{pointer.bucket}/{pointer.key}, which is not where replies are put"
            return Outcome(job_id, failure=Failure("refused", "ForeignPayload", text))
        try:
            data: bytes = self._clients.objects.get_object(Bucket=pointer.bucket, Key=pointer.key)["Body"].read()
        except ClientError as error:
            if code_of(error) not in MISSING:
                raise
            text = f"its reply is not in s3://{pointer.bucket}/{pointer.key} any more"
            return Outcome(job_id, failure=Failure("lost", "Lost", text))
        return Outcome(job_id, reply=data)

    def delete(self, pointers: Iterable[Pointer]) -> None:
        """Delete objects of our bucket; those that are gone are ignored."""
        keys: dict[str, list[dict[str, str]]] = defaultdict(list)
        for pointer in pointers:
            if pointer.bucket == self._bucket and pointer.key.startswith(self._prefix):
                keys[pointer.bucket].append({"Key": pointer.key})
        for bucket, found in keys.items():
            for start in range(0, len(found), _DELETED_AT_ONCE):
                batch = found[start : start + _DELETED_AT_ONCE]
                self._clients.objects.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})

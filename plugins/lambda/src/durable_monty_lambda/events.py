"""What travels to a Lambda function and back, as both sides see it. Standard library only.

    {"job_id": "e-0-1", "envelope": "...", "max_reply_bytes": 900000}      the event
    {"reply": "..."}                                                       the answer

Where an S3 bucket is configured, large texts travel as the address of an object instead: `envelope_s3` and `reply_s3`,
`{"bucket": "...", "key": "..."}`. The event says with `reply_to` where a large reply may be put.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_EVENT_BYTES = 1_000_000
"""Lambda takes "1 MB" of an asynchronous event, and SQS as much of a record of request and answer together. The smaller
reading of MB is safe under both."""

MAX_ANSWER_BYTES = 6_000_000
"""Lambda's limit for an answer that stays in Lambda."""

RECORD_BYTES = 4_000
"""What a destination record holds besides request and answer, amply."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The address of an object in S3."""

    bucket: str
    key: str

    def to_dict(self) -> dict[str, str]:
        """As it stands in an event or an answer."""
        return {"bucket": self.bucket, "key": self.key}

    @classmethod
    def read(cls, value: Any) -> Pointer | None:
        """The address that `to_dict` gave; None if this is none."""
        if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("bucket", "key")):
            return None
        return cls(value["bucket"], value["key"])


def dumped(value: Any) -> bytes:
    """JSON as short as it gets."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def size_bytes(value: Any) -> int:
    """The most bytes that this value takes as JSON, whoever writes it: other characters than ASCII may be escaped."""
    return len(json.dumps(value, separators=(",", ":"), allow_nan=False))

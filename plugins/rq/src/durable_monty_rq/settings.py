"""`[executors.rq]`."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr, field_validator

DEFAULT_KEY_PREFIX = "durable-monty"
_MAX_PULSE_SECONDS = 15.0


class RQSettings(BaseModel):
    """Table `[executors.rq]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    redis_url: str = Field(
        "redis://localhost:6379/0",
        repr=False,
        description="redis://, rediss:// (TLS; ?ssl_ca_certs=FILE) or unix://; may hold user and password.",
    )
    redis_password: SecretStr | None = Field(None, description="The password, where it is not to stand in the URL.")
    queue: str = Field("durable-monty", min_length=1, description="The RQ queue; a function's own `queue` beats it.")
    job_timeout_seconds: PositiveFloat | None = Field(
        None, description="Longest run of a function that has no timeout_seconds of its own; none: no limit."
    )
    key_prefix: str = Field(
        DEFAULT_KEY_PREFIX,
        min_length=1,
        description="Tells the jobs and results of several databases on one Redis apart; one of its own for each.",
    )
    result_stream: str | None = Field(None, description="The Redis stream of results; default: KEY_PREFIX:results.")
    serializer: Literal["default", "json"] = Field(
        "default", description='RQ\'s serializer; with "json" start the workers as `rq worker -S json`.'
    )
    max_in_flight: PositiveInt = Field(
        1000, description="Most jobs in Redis at once; further calls wait in the database."
    )
    sweep_interval_seconds: PositiveFloat = Field(5.0, description="Pause between two looks for jobs that were lost.")
    lost_after_seconds: PositiveFloat = Field(
        90.0, description="A running job without a sign of life for so long is lost; three are given in that time."
    )
    claim_after_seconds: PositiveFloat = Field(
        10.0, description="A result that another worker has read and not stored for so long is read again."
    )
    check_functions: list[str] = Field(
        default_factory=list, description="Dotted paths that `executors check` looks for on a worker."
    )

    @field_validator("redis_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        """Found now, in words that hold nothing of the URL: redis-py would quote a part of its password."""
        try:
            parts = urlsplit(url)
            is_usable = parts.scheme in ("redis", "rediss", "unix") and (parts.port is None or parts.port > 0)
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ValueError(
                "it is not a URL of Redis; write redis://, rediss:// or unix://, and characters such as / # @ of a "
                "password as %2F %23 %40"
            )
        return url

    @property
    def stream(self) -> str:
        """The key of the stream of results."""
        return self.result_stream or f"{self.key_prefix}:results"

    @property
    def pulse_seconds(self) -> float:
        """Time between two signs of life of a running job."""
        return min(self.lost_after_seconds / 3, _MAX_PULSE_SECONDS)

    def rq_id(self, job_id: str) -> str:
        """The id that RQ knows a job by: `job_id`, behind the prefix if it is not the default one."""
        if self.key_prefix == DEFAULT_KEY_PREFIX:
            return job_id
        # RQ takes letters, digits, "-" and "_"; two prefixes never become one.
        prefix = re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):x}_", self.key_prefix)
        return f"{prefix}-{job_id}"

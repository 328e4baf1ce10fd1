"""`[executors.rq]`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr


class RQSettings(BaseModel):
    """Table `[executors.rq]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        "durable-monty", min_length=1, description="Begins every key that is ours; one of its own for each database."
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
        90.0, description="A running job without a heartbeat for so long is lost. RQ's heartbeats come every 30 s."
    )
    check_functions: list[str] = Field(
        default_factory=list, description="Dotted paths that `executors check` looks for on a worker."
    )

    @property
    def stream(self) -> str:
        """The key of the stream of results."""
        return self.result_stream or f"{self.key_prefix}:results"

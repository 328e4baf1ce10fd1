"""`[executors.NAME]` of the Lambda executor."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator


class LambdaSettings(BaseModel):
    """The table of an executor with `plugin = "lambda"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function_name: str = Field(min_length=1, description="Name or ARN of the Lambda function.")
    qualifier: str | None = Field(None, description="Alias or version of the function; default: $LATEST.")
    results_queue_url: str | None = Field(
        None, description="The SQS queue that is the function's destination; one of its own for each database."
    )
    region: str | None = Field(None, description="AWS region; default: as boto3 finds it.")
    profile: str | None = Field(
        None, description="A profile of the AWS configuration files; default: boto3's own chain."
    )
    endpoint_url: str | None = Field(None, description="Where Lambda is, if not in AWS.")
    sqs_endpoint_url: str | None = Field(None, description="Where SQS is; default: endpoint_url.")
    s3_endpoint_url: str | None = Field(None, description="Where S3 is; default: endpoint_url.")
    payload_bucket: str | None = Field(
        None, description="S3 bucket for arguments and results that are too large for an event."
    )
    payload_prefix: str = Field("durable-monty/", description="Begins the key of each object in payload_bucket.")
    max_inline_bytes: PositiveInt = Field(
        400_000, le=1_000_000, description="With a payload_bucket, larger arguments go there."
    )
    event_format: Literal["envelope", "plain"] = Field(
        "envelope",
        description='"plain" sends {"function_name", "args"} to a handler of your own that returns {"result": ...}.',
    )
    max_in_flight: PositiveInt = Field(
        1000, description="Most calls in Lambda at once; further ones wait in the database."
    )
    invoke_threads: PositiveInt = Field(32, description="Requests to AWS at a time.")
    event_age_seconds: PositiveFloat = Field(
        3600.0, le=21600, description="MaximumEventAgeInSeconds of the function: how long an event may wait."
    )
    function_timeout_seconds: PositiveFloat = Field(900.0, description="Timeout of the Lambda function.")
    lost_after_seconds: PositiveFloat | None = Field(
        None,
        description="A call without a record for so long is lost; default: event age + timeout + a minute.",
    )
    in_doubt: Literal["resubmit", "wait"] = Field(
        "resubmit",
        description='A call that Lambda may or may not have: "resubmit" may run it twice, "wait" waits until it is lost.',
    )
    visibility_timeout_seconds: PositiveInt = Field(
        30, le=43200, description="How long a record that was read, and is not durable yet, stays hidden from others."
    )
    durable: bool = Field(False, description="The function is a Lambda durable function; no results queue is needed.")
    durable_poll_seconds: PositiveFloat = Field(1.0, description="Pause between two looks at durable executions.")
    durable_reads_per_poll: PositiveInt = Field(10, description="Most durable executions read in one look.")
    check_functions: list[str] = Field(
        default_factory=list, description="Dotted paths that `executors check` looks for in the Lambda function."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.durable and self.results_queue_url is None:
            raise ValueError("results_queue_url is missing; name the SQS queue, or set durable = true")
        if self.event_format == "plain" and (self.durable or self.payload_bucket):
            raise ValueError('event_format = "plain" goes with neither durable nor payload_bucket')
        return self

    @property
    def named(self) -> dict[str, str]:
        """The function, as the parameters of a request. A durable function is always named with a qualifier."""
        qualifier = self.qualifier or ("$LATEST" if self.durable else None)
        named = {"FunctionName": self.function_name}
        return named if qualifier is None else {**named, "Qualifier": qualifier}

    @property
    def lost_seconds(self) -> float:
        """Age at which a call without a record is lost."""
        return self.lost_after_seconds or self.event_age_seconds + self.function_timeout_seconds + 60.0

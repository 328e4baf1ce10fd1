"""The clients of AWS' services, and what their errors mean."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
)

from durable_monty_lambda.settings import LambdaSettings

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0

NOT_SENT = (EndpointConnectionError, ConnectTimeoutError, NoCredentialsError, NoRegionError)
"""Nothing has reached AWS."""

THROTTLED = frozenset(
    {"TooManyRequestsException", "ThrottlingException", "Throttling", "EC2ThrottledException", "RequestLimitExceeded"}
)
MISSING = frozenset({"ResourceNotFoundException", "NoSuchKey", "NoSuchBucket", "404"})


class Clients:
    """One client for each service, made when it is first used. Safe to use from several threads."""

    def __init__(self, settings: LambdaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()

    @cached_property
    def invoking(self) -> Any:
        """Lambda, for what must not be sent twice: botocore would repeat an invoke whose answer was lost."""
        return self._client("lambda", self._settings.endpoint_url, total_max_attempts=1)

    @cached_property
    def functions(self) -> Any:
        """Lambda, for what may be asked again."""
        return self._client("lambda", self._settings.endpoint_url, total_max_attempts=3)

    @cached_property
    def queue(self) -> Any:
        """SQS. A receive that is repeated finds the messages of the first one hidden for a while; none is lost."""
        url = self._settings.sqs_endpoint_url or self._settings.endpoint_url
        return self._client("sqs", url, total_max_attempts=2)

    @cached_property
    def objects(self) -> Any:
        """S3."""
        url = self._settings.s3_endpoint_url or self._settings.endpoint_url
        return self._client("s3", url, total_max_attempts=3)

    def close(self) -> None:
        """Close the connections of those that were made."""
        made = vars(self)
        for name in ("invoking", "functions", "queue", "objects"):
            if name in made:
                made[name].close()

    def _client(self, service: str, endpoint_url: str | None, *, total_max_attempts: int) -> Any:
        settings = self._settings
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_ANSWER_SECONDS,
            max_pool_connections=settings.invoke_threads,
            retries={"total_max_attempts": total_max_attempts, "mode": "standard"},
            s3={"addressing_style": "path"} if settings.s3_endpoint_url else None,
        )
        # Making clients from several threads at once is what boto3 warns of.
        with self._lock:
            session = boto3.Session(region_name=settings.region, profile_name=settings.profile)
            make: Callable[..., Any] = session.client
            return make(service, endpoint_url=endpoint_url, config=config)


def code_of(error: ClientError) -> str:
    """AWS' name of the error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def retry_after(error: ClientError) -> float | None:
    """Seconds that the answer asks to wait, or None."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return None

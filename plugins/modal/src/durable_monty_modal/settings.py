"""`[executors.modal]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

RESULTS_LIVE_SECONDS = 7 * 24 * 3600.0
"""How long Modal keeps a result that nobody has fetched."""

MAX_CONCURRENT_REQUESTS = 50
"""Requests of one executor that are under way at once."""


class ModalSettings(BaseModel):
    """Table `[executors.modal]`. The server's address is the `modal` client's own matter (`MODAL_SERVER_URL`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    app: str = Field("durable-monty", min_length=1, description="The deployed Modal app.")
    function: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        description="The app's function that runs calls without resources of their own; the names of the others "
        "begin with it.",
    )
    environment: str | None = Field(None, description="The Modal environment; default: the profile's.")
    token_id_env: str = Field(
        "MODAL_TOKEN_ID", min_length=1, description="The environment variable that holds the token's id."
    )
    token_secret_env: str = Field(
        "MODAL_TOKEN_SECRET", min_length=1, description="The environment variable that holds the token's secret."
    )
    max_in_flight: PositiveInt = Field(
        1000, description="Most calls at Modal at once; further calls wait in the database."
    )
    start_delay_seconds: NonNegativeFloat = Field(
        3600.0, description="How long a call may wait for a container; its time limit begins after that at the latest."
    )
    poll_interval_seconds: PositiveFloat = Field(
        0.5, description="Pause after asking for results in vain; shorter is sooner, and more requests."
    )
    missing_retry_seconds: PositiveFloat = Field(
        30.0, description="When a call whose Modal function is not deployed is tried again."
    )
    check_functions: list[str] = Field(
        default_factory=list, description="Dotted paths that `executors check` looks for in a container."
    )
    check_starts_container: bool = Field(
        True, description="Whether `executors check` runs a probe in a container, which Modal bills for some seconds."
    )
    check_seconds: PositiveFloat = Field(
        60.0, description="How long `executors check` waits for its probe; a container may have to be started for it."
    )

"""Functions that run in the containers of tests, some of them in place of `durable_monty_modal.remote:run`."""

from __future__ import annotations

import json

from durable_monty import function


@function
def time_out() -> None:
    raise TimeoutError("the shop is closed")


@function(resources={"gpu": "A10G", "cpu": 2.0, "memory": 4096}, timeout_seconds=600, executor="gpu")
def render(frame: int) -> str:
    return f"frame {frame}"


@function(timeout_seconds=1.5)
def quick(value: int) -> int:
    return value + 1


def undecorated(value: int) -> int:
    return -value


def foreign_time_out(envelope: bytes) -> None:
    raise TimeoutError("no time")


def foreign_value(envelope: bytes) -> int:
    return 42


def old_version(envelope: bytes) -> str:
    return json.dumps({"version": "0.1.9", "missing": {}, "is_signed": False})

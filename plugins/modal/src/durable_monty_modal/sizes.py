"""Which deployed Modal function runs a call: one for each set of resources, under a name that both sides can work out.

Modal fixes GPU, memory and timeout when a function is deployed. So the app has one function for each set of resources
that `@function(resources=..., timeout_seconds=...)` asks for, and the executor derives its name from the same two.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

RESOURCE_KEYS = (
    "cloud",
    "cpu",
    "ephemeral_disk",
    "gpu",
    "max_containers",
    "memory",
    "min_containers",
    "nonpreemptible",
    "region",
    "scaledown_window",
    "timeout",
)
"""What `resources=` may hold: arguments of `modal.App.function`, in Modal's own units (memory in MiB, times in s)."""

_MAX_NAME_CHARACTERS = 63


def size_of(resources: Mapping[str, Any] | None, timeout_seconds: float | None) -> dict[str, Any]:
    """The resources with the timeout: `resources["timeout"]`, else `timeout_seconds`, in whole seconds rounded up."""
    size = dict(resources or {})
    timeout = size.get("timeout", timeout_seconds)
    if timeout is not None:
        size["timeout"] = max(math.ceil(timeout), 1)
    return size


def name_of(base: str, size: Mapping[str, Any]) -> str:
    """The deployed function's name: `base` for no resources, else such as `run-gpu-A10G-timeout-600-5d1c8a02`."""
    if not size:
        return base
    canonical = json.dumps(size, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    words = "-".join(f"{key}-{json.dumps(size[key])}" for key in sorted(size))
    # Modal's names are letters, digits, `-` and `_`.
    room = _MAX_NAME_CHARACTERS - len(base) - len(digest) - 2
    readable = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-")[:room].strip("-")
    return f"{base}-{readable}-{digest}"

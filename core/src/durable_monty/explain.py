"""What people are shown of settings: problems in our words, and values without their secrets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

_SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|secret|token|credential|(signing|encryption|api|access|private|account)_?keys?)(?!_env)",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(/[^/@:\s]*:)\S*@")
_URL_PARAMETER = re.compile(r"([?&;][^=&;\s]*(?:pass|secret|token|key)[^=&;\s]*=)[^&;\s'\"]*", re.IGNORECASE)


def explain(error: ValidationError, model: type[BaseModel], base: Sequence[str], where: str) -> str:
    """A validation error in our words: where, which table and key, what was found, what to write.

    Args:
        base: The table that `model` stands for.
    """
    problems = []
    for item in error.errors(include_url=False):
        keys = [str(part) for part in (*base, *item["loc"])]
        table, key = ".".join(map(_quoted, keys[:-1])), keys[-1] if keys else ""
        place = f"[{table}] {key}" if table else key
        if item["type"] == "extra_forbidden":
            known = _known_keys(model, item["loc"][:-1])
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            problems.append(f"{place}: unknown key; {hint}")
        elif item["type"] == "missing":
            problems.append(f"{place}: this key is required")
        else:
            # A secret must not show up in an error's text.
            is_secret = any(_SECRET_NAME.search(part) for part in keys)
            found = "" if is_secret else f", found {mask_text(repr(masked(item['input'], key)))}"
            problems.append(f"{place}: {item['msg'][:1].lower()}{item['msg'][1:]}{found}")
    return f"reading the configuration from {where}: " + "; ".join(problems)


def masked(value: Any, key: str = "") -> Any:
    """A value as JSON has it, with what its key or a URL says to be a secret hidden."""
    if isinstance(value, dict):
        return {name: masked(item, key if _SECRET_NAME.search(key) else str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [masked(item, key) for item in value]
    if value is not None and _SECRET_NAME.search(key):
        return "********"
    return mask_text(value) if isinstance(value, str) else value


def mask_text(text: str) -> str:
    """A text with the passwords of its URLs hidden."""
    return _URL_PARAMETER.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))


def _known_keys(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """The keys of the table at a location below a model."""
    current: Any = model
    for part in location:
        fields = getattr(current, "model_fields", None)
        if fields is not None and part in fields:
            current = fields[part].annotation
        current = _model_in(current)
    return list(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """The model inside an annotation such as `dict[str, Model]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'

"""`durable-monty.toml`: finding, reading and checking it.

Searched for upwards from the working directory; `[tool.durable-monty]` of a `pyproject.toml` counts only where no
`durable-monty.toml` is found. Files are never merged and never written. Every key can be overridden by an environment
variable: `DURABLE_MONTY_STORE__URL` is `url` in `[store]`.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from durable_monty import observers, signing
from durable_monty.encryption import DEFAULT_CIPHER, EncryptionKeys
from durable_monty.errors import ConfigError
from durable_monty.explain import explain, masked
from durable_monty.functions import MAX_PRIORITY, MAX_SECONDS, normalized
from durable_monty.plugins import available, missing_message
from durable_monty.policies import CallPolicy, RetryPolicy, rate_per_second

FILENAME = "durable-monty.toml"
PREFIX = "DURABLE_MONTY_"
CONFIG_VARIABLE = "DURABLE_MONTY_CONFIG"
DEFAULT_URL = "sqlite:///durable-monty.db"
_SHORT = {
    "DURABLE_MONTY_FUNCTIONS": ("functions", "allow"),
    signing.KEY_VARIABLE: ("security", "signing_key"),
    signing.PREVIOUS_VARIABLE: ("security", "previous_signing_keys"),
    "DURABLE_MONTY_ENCRYPTION_KEY": ("security", "encryption_key"),
    "DURABLE_MONTY_PREVIOUS_ENCRYPTION_KEYS": ("security", "previous_encryption_keys"),
}
_LISTS_OF_KEYS = (signing.PREVIOUS_VARIABLE, "DURABLE_MONTY_PREVIOUS_ENCRYPTION_KEYS")
_NO_FILE = "the environment"


def _checked_rate(rate: str) -> str:
    rate_per_second(rate)
    return rate


Duration = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
DottedPath = Annotated[str, StringConstraints(pattern=r"^\w+([.:]\w+)+$"), AfterValidator(normalized)]
Rate = Annotated[str, AfterValidator(_checked_rate)]
ExecutorName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
ObserverName = ExecutorName
CipherName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$")]
Secret = Annotated[SecretStr, Field(min_length=16)]
EncryptionSecret = Annotated[SecretStr, Field(min_length=32)]


class Table(BaseModel):
    """A table of the configuration: unknown keys are errors; secrets are not in its `repr`, nor in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(value, name or "")


class StoreTable(Table):
    """Table `[store]`."""

    url: str = Field(DEFAULT_URL, description="Database: sqlite:///file.db or postgresql://user@host/database.")
    synchronous: Literal["EXTRA", "FULL", "NORMAL"] = Field(
        "FULL", description="SQLite only. NORMAL may lose the last commits on power loss, not when a process is killed."
    )


class WorkerTable(Table):
    """Table `[worker]`."""

    lease_seconds: PositiveFloat = Field(
        15.0, description="After this long without a sign of life a worker's work is taken over."
    )
    poll_interval_seconds: PositiveFloat = Field(
        1.0, description="Longest wait before an idle worker looks at the database."
    )
    timeout_grace_seconds: float = Field(
        5.0, ge=0, description="How long after a call's timeout the worker ends it if its executor has not."
    )
    stop_grace_seconds: float = Field(
        10.0, ge=0, description="How long running in-process functions may finish at SIGTERM."
    )


class InterpreterTable(Table):
    """Table `[interpreter]`."""

    max_memory_bytes: int = Field(
        256 * 1024 * 1024, ge=1024 * 1024, description="Heap of one execution; frozen at its start."
    )
    max_turn_seconds: PositiveFloat = Field(10.0, description="Longest stretch between two calls; frozen at its start.")
    request_timeout_seconds: PositiveFloat = Field(
        20.0, description="When a sandbox process that does not answer is killed."
    )
    processes: PositiveInt = Field(
        4, description="Most sandbox processes of one worker; two of them work at a time where many executions go on."
    )
    max_open_calls: PositiveInt = Field(
        100_000, description="Most calls of one execution that are open at the same time."
    )
    max_value_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        le=200 * 1024 * 1024,
        description="Longest text of one value: inputs, arguments, a result, a signal.",
    )
    max_print_characters: PositiveInt = Field(
        1_000_000, description="Most that a workflow prints between two waits; the rest is dropped."
    )
    max_source_bytes: int = Field(1024 * 1024, ge=1024, description="Longest source of a workflow.")


class SecurityTable(Table):
    """Table `[security]`."""

    signing_key: Secret | None = Field(
        None, description="Signs envelopes and snapshots; at least 16 characters, the same on every machine."
    )
    previous_signing_keys: list[Secret] = Field(
        default_factory=list, description="Signatures of these are accepted as well, while keys are being changed."
    )
    encryption_key: EncryptionSecret | None = Field(
        None, description="Encrypts what is stored; at least 32 characters, the same on every worker."
    )
    previous_encryption_keys: list[EncryptionSecret] = Field(
        default_factory=list, description="What these have encrypted is read as well."
    )
    cipher: CipherName | None = Field(
        None, description="The cipher plug-in; `aes-siv` where there is an encryption key."
    )
    cipher_options: dict[str, Any] = Field(default_factory=dict, description="The cipher's own settings.")

    @model_validator(mode="after")
    def _has_current(self) -> SecurityTable:
        if self.previous_signing_keys and self.signing_key is None:
            raise ValueError("previous_signing_keys without a signing_key: name the key that signs as well")
        return self


class RetentionTable(Table):
    """Table `[retention]`: what workers delete now and then."""

    delete_after_seconds: PositiveFloat | None = Field(
        None, description="Executions that ended longer ago are deleted by workers; without it none are."
    )
    statuses: list[Literal["completed", "failed", "cancelled"]] = Field(
        ["completed", "failed", "cancelled"],
        min_length=1,
        description="Only executions that ended like this are deleted.",
    )
    interval_seconds: PositiveFloat = Field(60.0, description="How often a worker looks for them.")


class FunctionsTable(Table):
    """Table `[functions]`."""

    allow: list[str] = Field(
        default_factory=list, description="Patterns of dotted paths of functions that may run undecorated."
    )


class RetryTable(Table):
    """Table `[function."...".retry]`."""

    attempts: PositiveInt = 3
    first_delay_seconds: float = Field(1.0, ge=0)
    factor: float = Field(2.0, ge=1)
    max_delay_seconds: float = Field(60.0, ge=0)
    jitter: float = Field(0.1, ge=0, le=1)
    on: list[str] = Field(default_factory=lambda: ["Exception"], description="Names of exception types.")
    when: DottedPath | None = Field(None, description="Path of a predicate that gets the failure.")

    def to_policy(self) -> RetryPolicy:
        """The same as a policy."""
        return RetryPolicy(**{**self.model_dump(), "on": tuple(self.on)})


class InfrastructureTable(Table):
    """Table `[infrastructure]`: the budget for attempts that were lost or could not be begun."""

    attempts: PositiveInt = Field(10, description="Attempts of one call that may be lost, the last one included.")
    first_delay_seconds: float = Field(
        0.5, ge=0, description="Wait after the second loss; the first is not waited for."
    )
    factor: float = Field(2.0, ge=1, description="By which the wait grows.")
    max_delay_seconds: float = Field(60.0, ge=0, description="Longest wait.")

    def to_policy(self) -> RetryPolicy:
        """The same as a policy."""
        return RetryPolicy(**self.model_dump(), jitter=0.0)


class FunctionTable(Table):
    """`[function."module.name"]`: what the operator says about one function; it beats the decorator."""

    executor: ExecutorName | None = None
    queue: str | None = None
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    timeout_seconds: Duration | None = None
    total_timeout_seconds: Duration | None = None
    heartbeat_seconds: Duration | None = None
    concurrency: PositiveInt | None = None
    rate: Rate | None = None
    key: DottedPath | None = None
    idempotent: bool | None = None
    resources: dict[str, Any] | None = None
    retry: RetryTable | None = None


class ExecutorTable(Table):
    """`[executors.NAME]`: `plugin`, and the plug-in's own settings."""

    model_config = ConfigDict(extra="allow")

    plugin: str | None = Field(None, description="The plug-in's name; the table's name if it is left out.")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are the plug-in's own."""
        return dict(self.model_extra or {})


class ObserverTable(ExecutorTable):
    """`[observers.NAME]`: `plugin`, and the observer's own settings."""


class Config(Table):
    """The whole configuration."""

    executor: ExecutorName = Field("local", description="The default executor.")
    store: StoreTable = Field(default_factory=StoreTable)
    worker: WorkerTable = Field(default_factory=WorkerTable)
    interpreter: InterpreterTable = Field(default_factory=InterpreterTable)
    infrastructure: InfrastructureTable = Field(default_factory=InfrastructureTable)
    security: SecurityTable = Field(default_factory=SecurityTable)
    executors: dict[ExecutorName, ExecutorTable] = Field(default_factory=dict)
    routes: dict[str, ExecutorName] = Field(
        default_factory=dict, description="Pattern of a dotted path to executor; the first match wins."
    )
    functions: FunctionsTable = Field(default_factory=FunctionsTable)
    retention: RetentionTable = Field(default_factory=RetentionTable)
    function: dict[str, FunctionTable] = Field(default_factory=dict)
    observe: list[ObserverName] = Field(default_factory=list, description="The observers that workers use, by name.")
    observers: dict[ObserverName, ObserverTable] = Field(default_factory=dict)

    @property
    def signing_key(self) -> signing.SigningKey | None:
        """The signing key, with those that are accepted besides it."""
        key = self.security.signing_key
        return (
            None if key is None else signing.SigningKey(_secret(key), map(_secret, self.security.previous_signing_keys))
        )

    @property
    def cipher_name(self) -> str | None:
        """The cipher plug-in, or None: what is stored is not encrypted, nor was it with a key that is known here."""
        table = self.security
        has_key = table.encryption_key is not None or table.previous_encryption_keys
        return table.cipher or (DEFAULT_CIPHER if has_key else None)

    @property
    def encryption_keys(self) -> EncryptionKeys:
        """The keys for the cipher."""
        table = self.security
        current = None if table.encryption_key is None else _secret(table.encryption_key)
        return EncryptionKeys(current, tuple(map(_secret, table.previous_encryption_keys)))

    def plugin_of(self, executor: str) -> tuple[str, dict[str, Any]]:
        """The plug-in of an executor and its settings; an executor without a table is a plug-in of that name."""
        table = self.executors.get(executor)
        return (executor, {}) if table is None else (table.plugin or executor, table.options)

    def observer_plugin_of(self, observer: str) -> tuple[str, dict[str, Any]]:
        """As `plugin_of`, for an observer."""
        table = self.observers.get(observer)
        return (observer, {}) if table is None else (table.plugin or observer, table.options)

    def complete(self, function: str, own: CallPolicy) -> CallPolicy:
        """How calls of a function run: the operator's table, else the decorator, else the routes, else the default.

        Args:
            own: What the decorator says.
        """
        table = self.function.get(function) or _NO_TABLE
        return CallPolicy(
            table.executor or own.executor or self._route(function) or self.executor,
            table.queue or own.queue,
            own.priority if table.priority is None else table.priority,
            own.timeout_seconds if table.timeout_seconds is None else table.timeout_seconds,
            own.retry if table.retry is None else table.retry.to_policy(),
            own.is_idempotent if table.idempotent is None else table.idempotent,
            own.resources if table.resources is None else table.resources,
            table.total_timeout_seconds or own.total_timeout_seconds,
            table.heartbeat_seconds or own.heartbeat_seconds,
            table.concurrency or own.concurrency,
            table.rate or own.rate,
            table.key or own.key,
        )

    def executor_names(self) -> dict[str, str]:
        """Every executor that the configuration names, with the place where it does."""
        named = {"executor": self.executor}
        named |= {f"routes.{pattern!r}": name for pattern, name in self.routes.items()}
        named |= {f"function.{path!r}.executor": item.executor for path, item in self.function.items() if item.executor}
        return {name: place for place, name in named.items()}

    def _route(self, function: str) -> str | None:
        return next((name for pattern, name in self.routes.items() if fnmatch.fnmatchcase(function, pattern)), None)


_NO_TABLE = FunctionTable()


def _secret(secret: SecretStr) -> bytes:
    return secret.get_secret_value().encode()


def load(
    path: Path | str | None = None, *, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """The configuration.

    Args:
        path: This file; None: `DURABLE_MONTY_CONFIG`, or what is found from `cwd` upwards, or the defaults.

    Raises:
        ConfigError: A file cannot be read or parsed, or a key is unknown, of the wrong type, or names an executor
            that is neither configured nor installed. The message names file, table and key.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    file, values = _read(path or environ.get(CONFIG_VARIABLE) or None, cwd)
    where = str(file) if file else _NO_FILE
    folder = file.parent if file else cwd
    url = values.get("store", {}).get("url", DEFAULT_URL) if isinstance(values.get("store", {}), dict) else DEFAULT_URL
    if isinstance(url, str):
        values = _with(values, ("store", "url"), _absolute(url, folder, cwd), where)
    for variable, keys, value in _overrides(environ):
        values = _with(values, keys, value, variable)
    values = _normalized_paths(values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, Config, (), where)) from error
    _check_executors(config, where)
    _check_observers(config, where)
    return config


def find(cwd: Path) -> Path | None:
    """The file that `load` would read, or None."""
    folders = [cwd, *cwd.parents]
    for folder in folders:
        if (folder / FILENAME).is_file():
            return folder / FILENAME
    for folder in folders:
        file = folder / "pyproject.toml"
        if file.is_file() and _own_table(_parse(file)) is not None:
            return file
    return None


def _own_table(values: Mapping[str, Any]) -> Any:
    """`[tool.durable-monty]` of a `pyproject.toml`; None: it has none."""
    tools = values.get("tool")
    return tools.get("durable-monty") if isinstance(tools, dict) else None


def to_display(config: Config) -> dict[str, Any]:
    """The configuration for people: every key with its value, secrets masked."""
    shown: dict[str, Any] = masked(config.model_dump(mode="json"))
    return shown


def json_schema(
    settings: Mapping[str, type[BaseModel]], observing: Mapping[str, type[BaseModel]] | None = None
) -> dict[str, Any]:
    """The JSON Schema of the file, for editors.

    Args:
        settings: The settings model of each installed executor plug-in, by its name.
        observing: Likewise of each installed observer.
    """
    schema = Config.model_json_schema()
    for key, models in (("executors", settings), ("observers", observing or {})):
        schema["properties"][key] = {
            "type": "object",
            "properties": {name: _with_plugin_key(model.model_json_schema()) for name, model in models.items()},
            "additionalProperties": {"type": "object", "properties": {"plugin": {"enum": sorted(models)}}},
        }
    return schema


def _read(path: Path | str | None, cwd: Path) -> tuple[Path | None, dict[str, Any]]:
    file = find(cwd) if path is None else (cwd / path)
    if file is None:
        return None, {}
    if not file.is_file():
        raise ConfigError(
            f"reading the configuration from {str(file)!r}: there is no such file; name another one, or none"
        )
    values = _parse(file)
    if file.name != "pyproject.toml":
        return file, values
    own = _own_table(values) or {}
    if not isinstance(own, dict):
        raise ConfigError(f"reading the configuration from {str(file)!r}: tool.durable-monty must be a table")
    return file, own


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise ConfigError(f"reading the configuration from {str(file)!r}: it is nested too deeply") from None
    except ValueError as error:
        # Also what is no TOMLDecodeError: bytes that are no UTF-8, a number with too many digits.
        raise ConfigError(f"reading the configuration from {str(file)!r}: it is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(
            f"reading the configuration from {str(file)!r}: {error.strerror}; check its permissions"
        ) from error


def _absolute(url: str, folder: Path, cwd: Path) -> str:
    """A relative SQLite path in a file is relative to that file's folder."""
    prefix = "sqlite:///"
    name = url.removeprefix(prefix)
    if not url.startswith(prefix) or name.startswith(("/", ":memory:")) or not name or folder == cwd:
        return url
    return f"{prefix}{folder / name}"


def _overrides(environ: Mapping[str, str]) -> Iterable[tuple[str, tuple[str, ...], Any]]:
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable in _LISTS_OF_KEYS:
            yield variable, _SHORT[variable], signing.split(text)
        elif variable == "DURABLE_MONTY_FUNCTIONS":
            yield variable, _SHORT[variable], [part.strip() for part in text.split(",") if part.strip()]
        elif variable in _SHORT:
            yield variable, _SHORT[variable], text
        else:
            keys = tuple(part.lower() for part in variable.removeprefix(PREFIX).split("__"))
            yield variable, keys, _toml_value(text)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _with(values: dict[str, Any], keys: Sequence[str], value: Any, where: str) -> dict[str, Any]:
    """The values with one key set."""
    first, *rest = keys
    if not rest:
        return {**values, first: value}
    inner = values.get(first, {})
    if not isinstance(inner, dict):
        raise ConfigError(
            f"reading the configuration from {where}: {first!r} is a {type(inner).__name__}, it must be a table"
        )
    return {**values, first: _with(inner, rest, value, where)}


def _normalized_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Paths and patterns of functions in one spelling: `module:name` means `module.name`."""
    for table in ("routes", "function"):
        if isinstance(values.get(table), dict):
            values = {**values, table: {key.replace(":", "."): item for key, item in values[table].items()}}
    return values


def _check_executors(config: Config, where: str) -> None:
    unknown = {name: place for name, place in config.executor_names().items() if name not in config.executors}
    if not unknown:
        return
    installed = available()
    for name, place in unknown.items():
        if name not in installed:
            known = sorted({*config.executors, *installed})
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"add a table [executors.{name}] with its plugin"
            raise ConfigError(
                f"reading the configuration from {where}: {place} names the executor {name!r}, which has no table, and "
                f"{missing_message(name, list(installed))}; {hint}"
            )


def _check_observers(config: Config, where: str) -> None:
    unknown = [name for name in config.observe if name not in config.observers]
    installed = list(observers.available()) if unknown else []
    for name in unknown:
        if name not in installed:
            raise ConfigError(
                f"reading the configuration from {where}: observe names {name!r}, which has no table, and "
                f"{observers.missing_message(name, installed)}; or add a table [observers.{name}] with its plugin"
            )


def _with_plugin_key(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "properties": {"plugin": {"type": "string"}, **schema.get("properties", {})}}

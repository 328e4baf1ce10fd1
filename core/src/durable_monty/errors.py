"""Every error this project raises, as one tree.

    DurableMontyError
    ├── ConfigError            ValueError    a configuration that cannot be used
    ├── PluginError                          an executor plug-in that is missing, broken or wrong
    ├── StoreError                           the database
    │   ├── StoreUnreachable                 cannot be opened
    │   └── SchemaMismatch                   newer than this code, or not ours
    ├── WorkflowError          ValueError    a workflow that cannot be started
    │   ├── WorkflowSourceError              its source cannot be taken
    │   ├── WorkflowCheckError               the check at submit found problems
    │   └── InputError                       missing, extra or unencodable inputs
    ├── FunctionError                        a host function
    │   ├── FunctionNotFound   LookupError   no such module or name
    │   └── FunctionRefused                  exists, but is not registered or not allowed
    ├── EncodeError            TypeError     a value that JSON and the codec cannot carry
    ├── DecodeError            ValueError    text that the codec did not write
    ├── PayloadUnreadable                    stored under a key that is not known here, or changed in the database
    ├── SignatureMismatch      ValueError    an envelope or snapshot whose HMAC is missing or wrong
    ├── ExecutionNotFound      ValueError    no execution with that id
    ├── ExecutionConflict      ValueError    the id is taken by another start
    ├── ExecutionNotEnded      ValueError    a result was asked for too early
    ├── ExecutionFailed        ValueError    the result of an execution that has none
    ├── ExecutionEnded         ValueError    too late for what was asked
    ├── SignalRefused          TypeError     a signal whose payload is not of the type that is waited for
    ├── ScheduleError          ValueError    a schedule that cannot be, or cannot do what was asked
    │   ├── ScheduleNotFound                 no schedule with that name
    │   └── ScheduleConflict                 the name is taken by one that differs
    ├── CallNotFound           ValueError    no such call in that execution
    └── CallEnded              ValueError    a result for a call that has already ended

What a host function raised somewhere else is data (`durable_monty.models.Failure`), not one of these.
Every message says what was being done, what was found, and what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass


class DurableMontyError(Exception):
    """The base of every error of this project."""


class ConfigError(DurableMontyError, ValueError):
    """A configuration file, table, key or environment variable that cannot be used."""


class PluginError(DurableMontyError):
    """An executor plug-in is missing, does not load, or does not keep to the hook specifications."""


class StoreError(DurableMontyError):
    """The database could not do what was asked."""


class StoreUnreachable(StoreError):
    """The database cannot be opened or does not answer."""


class SchemaMismatch(StoreError):
    """The database's schema is newer than this code, or belongs to something else."""


class WorkflowError(DurableMontyError, ValueError):
    """A workflow that cannot be started; nothing was stored."""


class WorkflowSourceError(WorkflowError):
    """The source of a `@workflow` function cannot be taken into the sandbox."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of the check at submit.

    Attributes:
        line: Line in the user's file or source text; the first is 1.
        column: Column in that line; the first is 1.
        message: What is wrong.
        source_line: The offending line as the user wrote it, without its line end.
    """

    line: int
    column: int
    message: str
    source_line: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}\n    {self.source_line.strip()}"


class WorkflowCheckError(WorkflowError):
    """The check at submit found problems; nothing was started.

    Attributes:
        problems: Every finding, in the order of the source.
    """

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = problems
        findings = "\n".join(str(problem) for problem in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"checking workflow {name!r} found {count}, nothing was started:\n{findings}")

    def __reduce__(self) -> tuple[type[WorkflowCheckError], tuple[str, list[Problem]]]:
        return type(self), (self.name, self.problems)


class InputError(WorkflowError):
    """Inputs that do not fit the workflow: missing, extra, or not encodable."""


class FunctionError(DurableMontyError):
    """A host function that cannot be called."""


class FunctionNotFound(FunctionError, LookupError):
    """A dotted path that names no importable function."""


class FunctionRefused(FunctionError):
    """A function that exists but may not be run: neither registered nor allowed."""


class EncodeError(DurableMontyError, TypeError):
    """A value that cannot be carried; the message names the path inside the value."""


class DecodeError(DurableMontyError, ValueError):
    """Text that is not what `durable_monty.codec` writes."""


class PayloadUnreadable(DurableMontyError):
    """Something stored is encrypted with a key that is not configured here, or was changed or moved in the database."""


class SignatureMismatch(DurableMontyError, ValueError):
    """An envelope, reply or snapshot whose HMAC is missing or does not fit the signing key."""


class ExecutionNotFound(DurableMontyError, ValueError):
    """No execution has this id."""


class ExecutionConflict(DurableMontyError, ValueError):
    """The execution id is taken by a start with another workflow or other inputs."""


class ExecutionNotEnded(DurableMontyError, ValueError):
    """The execution has no result yet."""


class ExecutionFailed(DurableMontyError, ValueError):
    """The execution ended without a result; the text holds its traceback."""


class ExecutionEnded(DurableMontyError, ValueError):
    """The execution has ended, so it cannot be cancelled or signalled any more."""


class SignalRefused(DurableMontyError, TypeError):
    """The execution waits for this signal with a payload of another type."""


class ScheduleError(DurableMontyError, ValueError):
    """A schedule that cannot be, or cannot do what was asked."""


class ScheduleNotFound(ScheduleError):
    """No schedule has this name."""


class ScheduleConflict(ScheduleError):
    """The name is taken by a schedule that differs."""


class CallNotFound(DurableMontyError, ValueError):
    """The execution has no such call."""


class CallEnded(DurableMontyError, ValueError):
    """The call has already ended; its outcome does not change."""

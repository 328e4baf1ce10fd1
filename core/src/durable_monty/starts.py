"""Starting executions: what is checked before anything is stored, and what is stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durable_monty import codec, convert
from durable_monty.durations import checked_seconds
from durable_monty.errors import ExecutionConflict, ExecutionNotEnded, InputError, WorkflowCheckError, WorkflowError
from durable_monty.interpreter import check_source
from durable_monty.models import ExecutionStatus
from durable_monty.program import Program, prepare
from durable_monty.records import ExecutionRow, WorkflowRecord
from durable_monty.runtime import Runtime
from durable_monty.store.starting import IdReuse, NewExecution
from durable_monty.texts import ID_RULE, is_id, is_storable
from durable_monty.workflows import Workflow

_MAX_KEY_CHARACTERS = 200
_MAX_TAGS = 50
# What the time of a process that only starts executions may be wrong by is what clocks drift apart meanwhile.
_CLOCK_MAX_AGE_SECONDS = 300.0
_ID_REUSES = ("reject", "return", "restart")


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What a start may ask for beyond a workflow and its inputs; see `OrchestratorService.start_execution`."""

    id_reuse: IdReuse | None = None
    deadline_seconds: float | None = None
    delay_seconds: float = 0.0
    tags: Mapping[str, str] | None = None
    memo: Mapping[str, Any] | None = None
    singleton_key: str | None = None
    debounce_key: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A workflow and inputs that fit it, checked.

    Attributes:
        inputs: As the codec's text.
        checked_at: When the check at submit passed; None: it was not asked for.
        children: The workflows that it may start as children.
    """

    record: WorkflowRecord
    inputs: str
    checked_at: float | None
    children: tuple[WorkflowRecord, ...] = ()


class Starter:
    """Starts executions of one database from one process. Safe to use from several threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._checked: set[str] = set()

    def prepare(
        self,
        workflow: str | Workflow[..., Any],
        functions: Iterable[Callable[..., Any] | str] | None,
        inputs: Mapping[str, Any],
        workflows: Iterable[Workflow[..., Any]] = (),
        *,
        check: bool,
        filename: str,
    ) -> Prepared:
        """Check that a workflow can be started with these inputs; raises as `start_execution`."""
        most = self._runtime.interpreter.limits.max_source_bytes
        if isinstance(workflow, str):
            _check_source_size("workflow", workflow, most)
        program = prepare(workflow, functions, inputs, filename, workflows)
        _check_source_size(program.record.name, program.record.source, most)
        text = self._encoded(f"starting workflow {program.record.name!r}", "inputs", inputs)
        checked_at = self._check(program) if check else None
        for child in program.children.values() if check else ():
            self._check(child)
        children = tuple(child.record for child in program.children.values())
        return Prepared(program.record, text, checked_at, children)

    def start(self, prepared: Prepared, execution_id: str | None, options: StartOptions) -> str:
        """Store an execution, or find the one that stands for it; raises as `start_execution`."""
        id_ = uuid.uuid4().hex if execution_id is None else checked_id(execution_id)
        self._runtime.store.clock.ask(older_than_seconds=_CLOCK_MAX_AGE_SECONDS)
        new = self._new_execution(id_, prepared, options, self._runtime.clock(), has_id=execution_id is not None)
        found = self._runtime.store.starting.start(new)
        if found.existing is None:
            self._runtime.want_look()
            return found.execution_id
        if options.id_reuse == "reject":
            raise ExecutionConflict(
                f"starting execution {id_!r}: it exists, it is {found.existing.status.value}; choose another id, or "
                "start with id_reuse='return' to get it"
            )
        if options.id_reuse == "restart":
            raise ExecutionNotEnded(
                f"starting execution {id_!r} anew: it is {found.existing.status.value}"
                f"{', and its parent waits for it' if found.existing.status.is_terminal else ''}; cancel it, wait for "
                "its end and start it again"
            )
        if options.id_reuse is None:
            _require_same(found.existing, new.row)
        return id_

    def start_all(
        self, prepared: Sequence[Prepared], execution_ids: Sequence[str] | None, options: StartOptions
    ) -> list[str]:
        """Store executions in one transaction; raises as `start_executions`."""
        if execution_ids is not None and len(execution_ids) != len(prepared):
            raise ValueError(
                f"starting {len(prepared)} executions: there are {len(execution_ids)} execution_ids; give one for each "
                "of the inputs, or none at all"
            )
        if not prepared:
            return []
        if execution_ids is None:
            ids = [uuid.uuid4().hex for _ in prepared]
        else:
            ids = [checked_id(id_) for id_ in execution_ids]
        self._runtime.store.clock.ask(older_than_seconds=_CLOCK_MAX_AGE_SECONDS)
        now = self._runtime.clock()
        news = [
            self._new_execution(id_, item, options, now, has_id=execution_ids is not None)
            for id_, item in zip(ids, prepared, strict=True)
        ]
        self._runtime.store.starting.start_all(news, _require_same)
        self._runtime.want_look()
        return ids

    def _check(self, program: Program) -> float:
        """The check at submit, once per workflow; returns when it passed."""
        digest = program.record.digest
        now = self._runtime.clock()
        if digest in self._checked:
            return now
        found = list(program.findings)
        if not self._runtime.store.is_checked(digest):
            at = {(problem.line, problem.column) for problem in found}
            found += [
                problem
                for problem in check_source(
                    self._runtime.interpreter, program.check_source, program.check_lines, program.stubs
                )
                if (problem.line, problem.column) not in at
            ]
        if found:
            found.sort(key=lambda problem: (problem.line, problem.column))
            raise WorkflowCheckError(program.record.name, found)
        self._checked.add(digest)
        return now

    def _new_execution(
        self, id_: str, prepared: Prepared, options: StartOptions, now: float, *, has_id: bool
    ) -> NewExecution:
        doing = f"starting execution {id_!r}" if has_id else f"starting workflow {prepared.record.name!r}"
        if options.id_reuse is not None and options.id_reuse not in _ID_REUSES:
            raise ValueError(
                f"{doing}: id_reuse is {options.id_reuse!r}; it is one of {', '.join(_ID_REUSES)}, or None"
            )
        if options.id_reuse is not None and not has_id:
            raise ValueError(
                f"{doing}: id_reuse={options.id_reuse!r} says what to do with an id that is taken; name an id"
            )
        delay = checked_seconds(doing, "delay_seconds", options.delay_seconds, allow_zero=True)
        deadline = options.deadline_seconds
        if deadline is not None:
            deadline = checked_seconds(doing, "deadline_seconds", deadline)
            if deadline <= delay:
                raise ValueError(
                    f"{doing}: deadline_seconds is {deadline:g}, but it is not to begin before {delay:g} s have passed; "
                    "the deadline counts from the start, make it longer"
                )
        for name, key in (("singleton_key", options.singleton_key), ("debounce_key", options.debounce_key)):
            if key is not None:
                _checked_text(doing, name, key)
        if options.debounce_key is not None and not delay:
            raise ValueError(f"{doing}: debounce_key without delay_seconds; say how long to wait for another start")
        row = ExecutionRow(
            id_,
            prepared.record.digest,
            ExecutionStatus.SCHEDULED,
            0,
            prepared.inputs,
            created_at=now,
            wake_at=now + delay,
            deadline_at=None if deadline is None else now + deadline,
            memo=None if options.memo is None else self._memo(doing, options.memo),
            singleton_key=options.singleton_key,
            debounce_key=options.debounce_key,
        )
        tags = checked_tags(options.tags, doing)
        return NewExecution(row, prepared.record, prepared.checked_at, tags, options.id_reuse, prepared.children)

    def _memo(self, doing: str, memo: Mapping[str, Any]) -> str:
        if not isinstance(memo, Mapping) or not all(isinstance(name, str) for name in memo):
            raise ValueError(f"{doing}: memo is {memo!r}; write a dict whose keys are texts")
        return self._encoded(doing, "memo", memo)

    def _encoded(self, doing: str, what: str, values: Mapping[str, Any]) -> str:
        try:
            return self._runtime.fitting(
                codec.dumps(convert.plain(dict(values)), path=what), f"what is given as {what}"
            )
        except TypeError as error:
            raise InputError(f"{doing}: {error}") from error


def checked_id(execution_id: str) -> str:
    """The id, if it is one that an execution may have.

    Raises:
        ValueError: It is not 1 to 100 letters, digits, `-` and `_`, or begins with `-`.
    """
    if not is_id(execution_id):
        raise ValueError(f"starting execution {execution_id!r:.200}: an id is {ID_RULE}; choose another")
    return execution_id


def checked_tags(tags: Mapping[str, str] | None, doing: str) -> dict[str, str]:
    """Tags that can be stored and searched for.

    Raises:
        ValueError: There are too many, or one is not text or too long.
    """
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise ValueError(f"{doing}: tags is {tags!r}; write a dict of texts, for example {{'customer': 'ada'}}")
    if len(tags) > _MAX_TAGS:
        raise ValueError(f"{doing}: {len(tags)} tags; {_MAX_TAGS} are the most, put the rest into the memo")
    for name, value in tags.items():
        _checked_text(doing, "the name of a tag", name)
        _checked_text(doing, f"tag {name!r}", value)
    return dict(tags)


def _check_source_size(name: str, source: str, most: int) -> None:
    size = len(source.encode(errors="surrogatepass"))
    if size > most:
        raise WorkflowError(
            f"starting workflow {name!r}: its source has {size} bytes, {most} are the most ([interpreter] "
            "max_source_bytes); pass data as inputs, and put what is large into host functions"
        )


def _checked_text(doing: str, what: str, value: object) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_KEY_CHARACTERS or not is_storable(value):
        raise ValueError(
            f"{doing}: {what} is {value!r:.300}; it must be text of 1 to {_MAX_KEY_CHARACTERS} characters, none of them "
            "null or a surrogate"
        )


def _require_same(existing: ExecutionRow, wanted: ExecutionRow) -> None:
    # Whether they are the same cannot be told of what cannot be read.
    codec.check_readable(existing.inputs)
    differs = [
        what
        for what, is_same in (
            ("another workflow", existing.workflow == wanted.workflow),
            ("other inputs", existing.inputs == wanted.inputs),
        )
        if not is_same
    ]
    if differs:
        raise ExecutionConflict(
            f"starting execution {wanted.id!r}: it exists with {' and '.join(differs)}; choose another "
            "id, or start it with what it was started with"
        )

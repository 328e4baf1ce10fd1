"""A workflow made ready to be started: its source as the sandbox runs it, its host functions, what it takes."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import json
import symtable
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from durable_monty import _prelude
from durable_monty.errors import InputError, Problem, WorkflowCheckError, WorkflowError
from durable_monty.extraction import FLOW, Evidence, Extracted, extract, origin_of
from durable_monty.functions import Function, get_function, register
from durable_monty.lint import lint
from durable_monty.parsing import parse
from durable_monty.records import FunctionRef, WorkflowRecord
from durable_monty.sandbox import SANDBOX_BUILTINS
from durable_monty.scoping import with_scoped_gather
from durable_monty.stubs import make_stubs
from durable_monty.texts import storable
from durable_monty.workflows import Workflow

_INPUTS = "_inputs"
_PLAIN_FILENAME = "<workflow>"
_KEPT_TEXTS = 64
"""Source texts that are not read again when they are started again."""


@dataclass(frozen=True, slots=True)
class Program:
    """A workflow and what is needed to check it.

    Attributes:
        record: What is stored.
        check_source: The user's code alone; `check_lines` are its lines in the user's file.
        stubs: The signatures of everything it may use without defining it.
        findings: What is wrong with it as far as its text tells; the type check comes on top.
        children: Every workflow that it, or one of these, may start as a child, by digest.
    """

    record: WorkflowRecord
    check_source: str
    check_lines: tuple[int, ...]
    stubs: str
    findings: list[Problem] = field(default_factory=list)
    children: dict[str, Program] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """A workflow whose children are not known by their digests yet; most fields are those of `Program`.

    Attributes:
        fingerprint: SHA-256 of the workflow itself, whatever its children are.
    """

    record: WorkflowRecord
    check_source: str
    check_lines: tuple[int, ...]
    stubs: str
    findings: list[Problem]
    children: dict[str, Workflow[..., Any]]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Made:
    """A draft, and all that it was made of besides the workflow."""

    evidence: Evidence
    given: Mapping[str, Function[Any]]
    offered: Mapping[str, Workflow[..., Any]]
    draft: Draft


def with_children(
    draft: Draft, given: Mapping[str, Function[Any]], offered: Mapping[str, Workflow[..., Any]]
) -> Program:
    """The program of a draft, with those of every workflow that it can reach; they may start each other in circles."""
    drafts: dict[Workflow[..., Any] | None, Draft] = {None: draft}
    todo = list(draft.children.values())
    while todo:
        workflow = todo.pop()
        if workflow not in drafts:
            drafts[workflow] = _from_function(workflow, given, offered)
            todo += drafts[workflow].children.values()
    # A workflow that only its children tell from another is another one: all that can be reached counts.
    reached = sorted(item.fingerprint for item in drafts.values()) if len(drafts) > 1 else []
    digests = {workflow: _digest(item.fingerprint, reached) for workflow, item in drafts.items()}
    programs = {
        digests[workflow]: Program(
            replace(
                item.record,
                digest=digests[workflow],
                children=_own(item, digests[workflow])
                | {name: digests[child] for name, child in item.children.items()},
            ),
            item.check_source,
            item.check_lines,
            item.stubs,
            item.findings,
        )
        for workflow, item in drafts.items()
    }
    own = programs.pop(digests[None])
    return replace(own, children=programs)


def _own(draft: Draft, digest: str) -> dict[str, str]:
    """A workflow can start itself, by its name."""
    return {draft.record.name: digest} if draft.record.entry else {}


def _digest(fingerprint: str, reached: Iterable[str]) -> str:
    parts = "".join(reached)
    return hashlib.sha256(f"{fingerprint}{parts}".encode()).hexdigest() if parts else fingerprint


def prepare(
    workflow: str | Workflow[..., Any],
    functions: Iterable[Callable[..., Any] | str] | None,
    inputs: Mapping[str, Any],
    filename: str = _PLAIN_FILENAME,
    workflows: Iterable[Workflow[..., Any]] = (),
) -> Program:
    """Make a workflow ready to be started with these inputs; registers its host functions in this process.

    Args:
        workflow: A `@workflow` function, or source text with top-level `await`.
        functions: Host functions: callables or dotted paths. None: those that the `@workflow` function names.
        filename: What tracebacks call source text.
        workflows: The workflows that it may start as children, besides those that a `@workflow` function names.

    Raises:
        WorkflowError: Its source cannot be taken or parsed, or two host functions have one name.
        InputError: Inputs are missing, or are not inputs of this workflow.
        FunctionNotFound: A dotted path names no function.
    """
    given = _by_name(functions or ())
    offered = {item.name: item for item in workflows}
    if isinstance(workflow, Workflow):
        _check_arguments(workflow.name, inspect.signature(workflow.__wrapped__), inputs)
        return with_children(_from_function(workflow, given, offered), given, offered)
    if not isinstance(workflow, str):
        raise WorkflowError(
            f"starting {workflow!r}: it is neither source text nor a @workflow function; decorate it with @workflow"
        )
    draft = _from_text(workflow, tuple(given.items()), tuple(offered.items()), tuple(inputs), filename)
    return with_children(draft, given, offered)


def _by_name(functions: Iterable[Callable[..., Any] | str]) -> dict[str, Function[Any]]:
    named: dict[str, Function[Any]] = {}
    for item in functions:
        function = register(get_function(item)) if isinstance(item, str) else register(item)
        other = named.setdefault(function.__name__, function)
        if other.path != function.path:
            raise WorkflowError(
                f"starting a workflow with host functions {other.path!r} and {function.path!r}: both are called "
                f"{function.__name__!r} in the workflow; rename one of them"
            )
    return named


def _from_function(
    workflow: Workflow[..., Any],
    given: Mapping[str, Function[Any]],
    offered: Mapping[str, Workflow[..., Any]],
) -> Draft:
    """The draft of a `@workflow` function: the one that was made before, if nothing has changed since."""
    origin = origin_of(workflow)
    made: _Made | None = workflow.prepared
    if made is None or not made.evidence.holds(origin) or (made.given, made.offered) != (given, offered):
        taken = extract(workflow, given, origin)
        made = workflow.prepared = _Made(taken.evidence, given, offered, _from_source(workflow, taken, offered))
    return made.draft


def _from_source(workflow: Workflow[..., Any], taken: Extracted, offered: Mapping[str, Workflow[..., Any]]) -> Draft:
    children = {**offered, **taken.workflows}
    prelude = _prelude.prelude(taken.flow) + _names_of(taken.workflows)
    text = "\n".join(line for line, _ in taken.lines)
    numbers = tuple(number for _, number in taken.lines)
    source = f"{prelude}{_fed(text, taken.flow)}\nawait {workflow.name}(**{_INPUTS})"
    record = _record(
        workflow.name,
        taken.filename,
        source,
        (*_zeros(prelude), *numbers, 0),
        taken.user_source,
        taken.first_line,
        taken.functions,
        taken.flow,
        entry=_INPUTS,
        parameters=_parameters(workflow),
    )
    stubs = make_stubs(taken.functions, taken.flow, (), taken.workflows)
    known = {*taken.functions, *taken.flow, *taken.workflows}
    return _draft(record, text, numbers, stubs, lint(text, numbers, known), children)


def _draft(
    record: WorkflowRecord,
    check_source: str,
    check_lines: tuple[int, ...],
    stubs: str,
    findings: list[Problem],
    children: dict[str, Workflow[..., Any]],
) -> Draft:
    functions = [
        [ref.name, ref.path, ref.blocking, ref.policy.to_dict()]
        for ref in sorted(record.functions.values(), key=lambda ref: ref.name)
    ]
    # Not the file's name: the same workflow may lie elsewhere on another machine.
    parts = [record.name, record.source, record.lines, record.entry, functions, stubs]
    fingerprint = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()
    return Draft(record, check_source, check_lines, stubs, findings, children, fingerprint)


def _parameters(workflow: Workflow[..., Any]) -> dict[str, bool]:
    """What a workflow takes by name, and whether it must be given."""
    parameters = inspect.signature(workflow.__wrapped__).parameters.values()
    return {item.name: item.default is item.empty for item in parameters if item.kind is not item.VAR_KEYWORD}


def _names_of(workflows: Iterable[str]) -> str:
    """What stands for other workflows in the sandbox: their names."""
    return "".join(f"{name} = {name!r}\n" for name in workflows)


def _fed(text: str, flow: Mapping[str, str]) -> str:
    """The user's text as the sandbox runs it."""
    return with_scoped_gather(text) if _prelude.is_scoped(flow) else text


def _check_arguments(name: str, signature: inspect.Signature, inputs: Mapping[str, Any]) -> None:
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise WorkflowError(
                f"starting workflow {name!r}: its parameter {parameter.name!r} cannot be given by name, as inputs are; "
                "declare it without `/` or `*`"
            )
    try:
        signature.bind(**inputs)
    except TypeError as error:
        raise InputError(
            f"starting workflow {name!r} with inputs {sorted(inputs)}: {error}; it takes {name}{signature}"
        ) from error


@lru_cache(maxsize=_KEPT_TEXTS)
def _from_text(
    text: str,
    functions: tuple[tuple[str, Function[Any]], ...],
    workflows: tuple[tuple[str, Workflow[..., Any]], ...],
    inputs: tuple[str, ...],
    filename: str,
) -> Draft:
    """The draft of a source text; the arguments are all that it is made of.

    Args:
        inputs: The names alone.
    """
    given, offered = dict(functions), dict(workflows)
    name = PurePath(filename).stem if filename != _PLAIN_FILENAME else "workflow"
    try:
        tree = parse(text)
    except (SyntaxError, ValueError) as error:
        raise WorkflowCheckError(name, [_syntax_problem(text, error)]) from error
    except (RecursionError, MemoryError) as error:
        problem = Problem(1, 1, "syntax error: it is nested too deeply to be read", text[:200].partition("\n")[0])
        raise WorkflowCheckError(name, [problem]) from error
    plain, flow = _without_flow_imports(text, tree)
    numbers = tuple(range(1, plain.count("\n") + 2))
    used = {name: item for name, item in offered.items() if name in _names(plain)[0]}
    missing = _check_names(name, text, plain, {*given, *flow, *used}, inputs)
    prelude = _prelude.prelude(flow) + _names_of(used)
    lines = (*_zeros(prelude), *numbers)
    record = _record(name, filename, prelude + _fed(plain, flow), lines, text, 1, given, flow)
    findings = [*missing, *lint(plain, numbers, {*given, *flow, *inputs, *used})]
    return _draft(record, plain, numbers, make_stubs(given, flow, inputs, used), findings, offered)


def _syntax_problem(text: str, error: SyntaxError | ValueError) -> Problem:
    line = getattr(error, "lineno", None) or 1
    lines = text.split("\n")
    shown = lines[line - 1] if line <= len(lines) else ""
    return Problem(line, getattr(error, "offset", None) or 1, f"syntax error: {getattr(error, 'msg', error)}", shown)


def _without_flow_imports(text: str, tree: ast.Module) -> tuple[str, dict[str, str]]:
    """The text without imports that the sandbox is not to see, every line in its place, and the helpers imported."""
    lines = text.split("\n")
    flow: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.module not in (FLOW, "__future__"):
            continue
        for alias in node.names if node.module == FLOW else ():
            if alias.name not in _prelude.HELPERS:
                message = f"{FLOW} has no {alias.name!r}; it has {', '.join(sorted(_prelude.HELPERS))}"
                problem = Problem(node.lineno, node.col_offset + 1, message, lines[node.lineno - 1])
                raise WorkflowCheckError("workflow", [problem])
            flow[alias.asname or alias.name] = alias.name
        last = node.end_lineno or node.lineno
        before = lines[node.lineno - 1].encode()[: node.col_offset].decode()
        after = lines[last - 1].encode()[node.end_col_offset :].decode()
        lines[node.lineno - 1 : last] = [f"{before}pass{after}", *[""] * (last - node.lineno)]
    return "\n".join(lines), flow


def _check_names(name: str, text: str, plain: str, known: set[str], inputs: Collection[str]) -> list[Problem]:
    """Check the inputs against the names that the source uses; returns calls of functions that nobody defines."""
    used, defined = _names(plain)
    undefined = used - defined - known - set(inputs) - SANDBOX_BUILTINS
    calls = _undefined_calls(text, undefined, known)
    missing = sorted(undefined - set(calls))
    if missing:
        raise InputError(
            f"starting workflow {name!r}: nobody defines {', '.join(map(repr, missing))}, first used at line "
            f"{_first_use(plain, missing[0])}; pass it in inputs="
        )
    extra = sorted(set(inputs) - used)
    if extra:
        near = difflib.get_close_matches(extra[0], used, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "; remove it"
        raise InputError(
            f"starting workflow {name!r} with inputs {sorted(inputs)}: the source never uses {extra[0]!r}{hint}"
        )
    return list(calls.values())


def _names(text: str) -> tuple[set[str], set[str]]:
    """The global names that the source uses, and those that it defines."""
    module = symtable.symtable(text, _PLAIN_FILENAME, "exec")
    used: set[str] = set()
    defined = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    tables = [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() and (symbol.is_referenced() or table is module):
                used.add(symbol.get_name())
            if symbol.is_declared_global() and symbol.is_assigned():
                defined.add(symbol.get_name())
    return used, defined


def _undefined_calls(text: str, undefined: set[str], known: Iterable[str]) -> dict[str, Problem]:
    lines = text.split("\n")
    found: dict[str, Problem] = {}
    for node in ast.walk(parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in undefined):
            continue
        function = node.func.id
        near = difflib.get_close_matches(function, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "name it in external_functions (or --function)"
        message = f"no host function {function!r} is known; {hint}"
        found.setdefault(function, Problem(node.lineno, node.col_offset + 1, message, lines[node.lineno - 1]))
    return found


def _first_use(text: str, name: str) -> int:
    nodes = (node for node in ast.walk(parse(text)) if isinstance(node, ast.Name) and node.id == name)
    return min((node.lineno for node in nodes), default=1)


def _zeros(prelude: str) -> tuple[int, ...]:
    return (0,) * prelude.count("\n")


def _record(
    name: str,
    filename: str,
    source: str,
    lines: tuple[int, ...],
    user_source: str,
    first_line: int,
    functions: Mapping[str, Function[Any]],
    flow: Mapping[str, str],
    entry: str = "",
    parameters: Mapping[str, bool] | None = None,
) -> WorkflowRecord:
    references = {
        used: FunctionRef(used, item.path, item.options.blocking, item.options.to_policy())
        for used, item in functions.items()
    }
    references |= {
        used: FunctionRef(used, f"{FLOW}.{helper}", blocking)
        for used, (helper, blocking) in _prelude.served(flow).items()
    }
    return WorkflowRecord(
        "",
        storable(name),
        storable(filename),
        source,
        lines,
        user_source,
        first_line,
        references,
        entry,
        parameters or {},
    )

"""Taking the source of a `@workflow` function: the function, and of its module what it uses.

Lines are kept as they are, so that a position in what the sandbox runs is a position in the user's file.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import symtable
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from durable_monty._prelude import HELPERS
from durable_monty.errors import WorkflowSourceError
from durable_monty.functions import Function
from durable_monty.parsing import parse, parse_expression
from durable_monty.workflows import Workflow

SANDBOX_MODULES = frozenset(
    [
        "json",
        "re",
        "datetime",
        "random",
        "math",
        "hashlib",
        "base64",
        "binascii",
        "collections",
        "itertools",
        "functools",
        "decimal",
        "typing",
        "dataclasses",
        "pathlib",
        "csv",
        "time",
        "asyncio",
        "os",
        "os.path",
        "sys",
        "copy",
        "bisect",
        "tomllib",
        "unicodedata",
    ]
)
"""What workflow code can import."""

FLOW = "durable_monty.flow"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Origin:
    """What the source of a workflow is taken from.

    Attributes:
        text: The lines of the file, as they are now.
        namespace: What names mean to the workflow now.
    """

    filename: str
    text: list[str]
    namespace: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a source that was taken depends on.

    Attributes:
        meanings: What the names that it uses meant.
    """

    filename: str
    text: list[str]
    meanings: dict[str, Any] = field(default_factory=dict)

    def holds(self, origin: Origin) -> bool:
        """Whether the same source would be taken from there."""
        return (self.filename, self.text) == (origin.filename, origin.text) and all(
            # Not compared by value: what `==` does is the user's.
            origin.namespace.get(name, _MISSING) is value
            for name, value in self.meanings.items()
        )


@dataclass(slots=True)
class Extracted:
    """The source of a workflow, ready to be put together.

    Attributes:
        evidence: What all this depends on.
        lines: The text, with the number of each line in the user's file.
        functions: Host functions by the name that the source uses.
        flow: Helpers of `durable_monty.flow` by the name that the source uses.
        workflows: Other workflows by the name that the source uses.
    """

    filename: str
    user_source: str
    first_line: int
    evidence: Evidence
    lines: list[tuple[str, int]] = field(default_factory=list)
    functions: dict[str, Function[Any]] = field(default_factory=dict)
    flow: dict[str, str] = field(default_factory=dict)
    workflows: dict[str, Workflow[..., Any]] = field(default_factory=dict)


def origin_of(workflow: Workflow[..., Any]) -> Origin:
    """What the source of a workflow is to be taken from.

    Raises:
        WorkflowSourceError: The source cannot be had.
    """
    filename, text = _file_of(workflow)
    function = workflow.__wrapped__
    closure = inspect.getclosurevars(function).nonlocals
    return Origin(filename, text, {**getattr(function, "__globals__", {}), **closure})


def extract(workflow: Workflow[..., Any], given: Mapping[str, Function[Any]], origin: Origin) -> Extracted:
    """The source of a workflow and of everything in its module that it uses.

    Args:
        given: Host functions that were named at the start, by name; others are found by themselves.
        origin: What `origin_of` has found.

    Raises:
        WorkflowSourceError: The file is not the one that was imported, or the workflow uses a name that cannot be taken
            into the sandbox.
    """
    return _Extraction(workflow, given, origin).run()


class _Extraction:
    def __init__(self, workflow: Workflow[..., Any], given: Mapping[str, Function[Any]], origin: Origin) -> None:
        self._function = workflow.__wrapped__
        self._name = workflow.name
        self._given = given
        self._filename, self._text, self._namespace = origin.filename, origin.text, origin.namespace
        self._evidence = Evidence(self._filename, self._text)
        self._tree = parse("\n".join(self._text))
        self._scopes = self._find()
        self._bindings = _bindings(self._scopes)
        self._taken: dict[str, tuple[int, list[tuple[str, int]]]] = {}

    def run(self) -> Extracted:
        node = self._scopes[-1]
        assert isinstance(node, _FUNCTIONS)
        last = node.end_lineno or node.lineno
        user_source = "\n".join(self._text[node.lineno - 1 : last])
        self._out = Extracted(self._filename, user_source, node.lineno, self._evidence)
        self._take_function(self._name, node)
        for _, lines in sorted(self._taken.values(), key=lambda item: item[0]):
            self._out.lines += lines
        return self._out

    def _find(self) -> list[ast.AST]:
        """The module, the functions around the workflow, and the workflow itself."""
        first_line = self._function.__code__.co_firstlineno
        for path in _paths([self._tree]):
            node = path[-1]
            if isinstance(node, ast.AsyncFunctionDef) and node.name == self._name and _first_line(node) == first_line:
                return [item for item in path if isinstance(item, (ast.Module, *_FUNCTIONS))]
        raise WorkflowSourceError(
            f"taking the source of workflow {self._name!r}: {self._filename!r} has no such function at line "
            f"{first_line}; has the file changed since it was imported?"
        )

    def _take_function(self, name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        lines = self._lines(node.lineno, node.end_lineno or node.lineno)
        plain = _blank(lines, _annotations(node), node.lineno)
        wanted = {annotation: self._is_known(annotation.node) for annotation in _annotations(node)}
        kept = _blank(lines, [item for item, is_known in wanted.items() if not is_known], node.lineno)
        numbered = [(text, node.lineno + index) for index, text in enumerate(kept)]
        if node.col_offset:
            numbered.insert(0, ("if True:", node.lineno))
            plain.insert(0, "if True:")
        self._taken[name] = (node.lineno, numbered)
        used = _free_names("\n".join(plain))
        for annotation, is_known in wanted.items():
            if is_known:
                used |= _names(annotation.node)
        for free in sorted(used):
            self._take(free, node)

    def _take(self, name: str, user: ast.AST) -> None:
        """Make a name that is used, but not defined there, available."""
        if name in self._taken or name in self._out.functions or name in self._out.flow or name in self._out.workflows:
            return
        value = self._meaning(name)
        if name in self._given:
            self._out.functions[name] = self._given[name]
        elif isinstance(value, Function):
            self._out.functions[name] = value
        elif isinstance(value, Workflow):
            self._take_workflow(name, value, user)
        elif name in self._bindings:
            self._take_binding(name, self._bindings[name], user)
        elif value is not _MISSING:
            self._refuse(name, user, "how it gets its value cannot be seen in the module's text")
        elif not hasattr(builtins, name):
            # Nobody defines it: the check at submit says so, or the workflow raises NameError.
            return

    def _meaning(self, name: str) -> Any:
        value = self._evidence.meanings[name] = self._namespace.get(name, _MISSING)
        return value

    def _take_workflow(self, name: str, value: Workflow[..., Any], user: ast.AST) -> None:
        called = any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
            for node in ast.walk(user)
        )
        if called:
            self._refuse(name, user, f"it is a workflow; start it as a child: `await child({name}, inputs={{...}})`")
        self._out.workflows[name] = value

    def _take_binding(self, name: str, nodes: Sequence[ast.AST], user: ast.AST) -> None:
        node = nodes[-1]
        if isinstance(node, _IMPORTS):
            self._take_import(name, node, user)
        elif len(nodes) > 1:
            self._refuse(name, user, f"it is bound {len(nodes)} times in the module; bind it once")
        elif isinstance(node, _FUNCTIONS):
            if node.decorator_list:
                self._refuse(name, user, "it is decorated; decorate it with @function alone, or not at all")
            self._take_function(name, node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_literal(node.value):
            self._take_constant(name, node)
        elif isinstance(node, ast.ClassDef):
            self._refuse(name, user, "it is a class; pass plain values, and use it in host functions only")
        else:
            self._refuse(name, user, "its value is not a literal; pass it as an input, or return it from a @function")

    def _take_import(self, name: str, node: ast.AST, user: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom):
            alias = next(item for item in node.names if (item.asname or item.name) == name)
            if node.module == FLOW and not node.level:
                if alias.name not in HELPERS:
                    self._refuse(name, user, f"{FLOW} has no {alias.name!r}; it has {', '.join(sorted(HELPERS))}")
                self._out.flow[name] = alias.name
                return
            if node.level or node.module not in SANDBOX_MODULES:
                module = "." * node.level + (node.module or "")
                self._refuse(name, user, f"it is imported from {module!r}, which the sandbox lacks; {_DO_OUTSIDE}")
            text = f"from {node.module} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
        else:
            assert isinstance(node, ast.Import)
            alias = next(item for item in node.names if (item.asname or item.name.partition(".")[0]) == name)
            if alias.name not in SANDBOX_MODULES:
                self._refuse(name, user, f"the module {alias.name!r} is not in the sandbox; {_DO_OUTSIDE}")
            text = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
        self._taken[name] = (node.lineno, [(text, node.lineno)])

    def _take_constant(self, name: str, node: ast.Assign | ast.AnnAssign) -> None:
        assert node.value is not None
        first, last = node.value.lineno, node.value.end_lineno or node.value.lineno
        lines = self._lines(first, last)
        end = node.value.end_col_offset or 0
        lines[-1] = lines[-1].encode()[:end].decode()
        lines[0] = f"{name} = ({lines[0].encode()[node.value.col_offset :].decode()}"
        lines[-1] += ")"
        self._taken[name] = (node.lineno, [(text, first + index) for index, text in enumerate(lines)])

    def _is_known(self, annotation: ast.AST) -> bool:
        """Whether the sandbox has everything that an annotation names."""
        return all(self._is_type(name) for name in _names(annotation))

    def _is_type(self, name: str) -> bool:
        if self._meaning(name) is _MISSING and name not in self._bindings:
            return hasattr(builtins, name)
        node = self._bindings.get(name, [None])[-1]
        if isinstance(node, ast.ImportFrom):
            return not node.level and node.module in SANDBOX_MODULES
        return isinstance(node, ast.Import) and any(
            item.name in SANDBOX_MODULES for item in node.names if (item.asname or item.name) == name
        )

    def _lines(self, first: int, last: int) -> list[str]:
        return self._text[first - 1 : last]

    def _refuse(self, name: str, user: ast.AST, reason: str) -> NoReturn:
        used = next((node for node in ast.walk(user) if isinstance(node, ast.Name) and node.id == name), user)
        line: int = getattr(used, "lineno", 0)
        column: int = getattr(used, "col_offset", 0) + 1
        shown = self._text[line - 1].strip() if line else ""
        raise WorkflowSourceError(
            f"taking the source of workflow {self._name!r}: it uses {name!r} at {self._filename}:{line}:{column}, and "
            f"{reason}\n    {shown}"
        )


_DO_OUTSIDE = "put what needs it into a @function"


def _file_of(workflow: Workflow[..., Any]) -> tuple[str, list[str]]:
    function = workflow.__wrapped__
    try:
        lines, _ = inspect.findsource(function)
        filename = inspect.getsourcefile(function) or "<workflow>"
    except (OSError, TypeError) as error:
        raise WorkflowSourceError(
            f"taking the source of workflow {workflow.name!r}: it cannot be read ({error}); define the workflow in a "
            "file, or pass its source as text"
        ) from error
    return filename, [line.rstrip("\r\n") for line in lines]


def _paths(path: list[ast.AST]) -> Iterator[list[ast.AST]]:
    """Every node below the last of `path`, with all that is around it."""
    for child in ast.iter_child_nodes(path[-1]):
        yield [*path, child]
        yield from _paths([*path, child])


def _first_line(node: ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(item.lineno for item in node.decorator_list)])


def _bindings(scopes: Iterable[ast.AST]) -> dict[str, list[ast.AST]]:
    """What binds each name, in the innermost scope that binds it."""
    found: dict[str, list[ast.AST]] = {}
    for scope in list(scopes)[:-1]:
        inner: dict[str, list[ast.AST]] = {}
        for statement in _statements(getattr(scope, "body", [])):
            for name in _bound(statement):
                inner.setdefault(name, []).append(statement)
        found.update(inner)
    return found


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, part, []))


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, ast.Import):
        yield from (item.asname or item.name.partition(".")[0] for item in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        yield from (item.asname or item.name for item in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For | ast.With):
        yield from (
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )


def _is_literal(node: ast.expr | None) -> bool:
    """Whether it is a literal, or reckons with literals: `30 * 86_400`."""
    if node is None:
        return False
    if isinstance(node, ast.BinOp):
        return _is_literal(node.left) and _is_literal(node.right)
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _free_names(text: str) -> set[str]:
    """The names that this text uses and does not define."""
    module = symtable.symtable(text, "<workflow>", "exec")
    defined = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used: set[str] = set()
    tables = [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        used |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return used - defined


def _names(node: ast.AST) -> set[str]:
    """The names in an annotation, also in one that is written as text."""
    names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    for item in ast.walk(node):
        if isinstance(item, ast.Constant) and isinstance(item.value, str):
            try:
                names |= _names(parse_expression(item.value))
            except SyntaxError:
                # A text inside Literal[...].
                continue
    return names


@dataclass(frozen=True, slots=True)
class _Annotation:
    """An annotation and the stretch of text that has to go if it cannot stay: (line, column) in bytes.

    Attributes:
        filler: What is written there instead of spaces.
    """

    node: ast.expr
    begin: tuple[int, int]
    end: tuple[int, int]
    filler: str = ""


def _annotations(function: ast.AST) -> list[_Annotation]:
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.arg) and node.annotation is not None:
            begin = (node.lineno, node.col_offset + len(node.arg.encode()))
            found.append(_Annotation(node.annotation, begin, _end(node.annotation)))
        elif isinstance(node, _FUNCTIONS) and node.returns is not None:
            found.append(_Annotation(node.returns, _end_of_parameters(node), _end(node.returns)))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            found.append(_Annotation(node.annotation, _end(node.target), _end(node.annotation)))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            # A bare declaration: what is left of it must still be a statement.
            found.append(_Annotation(node.annotation, (node.lineno, node.col_offset), _end(node.annotation), "0"))
    return found


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def _end_of_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[int, int]:
    """Where the search for the arrow of the return annotation begins: negative column, resolved by `_blank`."""
    assert node.returns is not None
    return node.returns.lineno, -node.returns.col_offset


def _blank(lines: Sequence[str], annotations: Iterable[_Annotation], first_line: int) -> list[str]:
    """The lines with these stretches replaced by spaces, so that everything else keeps its place."""
    encoded = [bytearray(line.encode()) for line in lines]
    for item in annotations:
        (line, column), (last, end) = item.begin, item.end
        line, last = line - first_line, last - first_line
        if column < 0:
            line, column = _find_arrow(encoded, line, -column)
        for index in range(line, last + 1):
            begin = column if index == line else 0
            stop = end if index == last else len(encoded[index])
            encoded[index][begin:stop] = b" " * (stop - begin)
        if item.filler:
            encoded[line][column : column + 1] = item.filler.encode()
    return [line.decode() for line in encoded]


def _find_arrow(lines: Sequence[bytearray], line: int, column: int) -> tuple[int, int]:
    """The arrow before this position."""
    found = lines[line].rfind(b"->", 0, column)
    while found < 0 and line > 0:
        line -= 1
        found = lines[line].rfind(b"->")
    return line, found

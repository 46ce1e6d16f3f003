"""What a script takes of the original, read from its source; nothing is imported or run.

Names are followed through imports, aliases and attributes, into modules that lie beside the script. What is put
together while the script runs (`getattr`, `import_module`) is not seen.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from surestep.compat.homes import HOMES
from surestep.compat.stand_in import PACKAGE

_EVERYTHING = "*"


@dataclass(frozen=True)
class Taken:
    """A name of the original that a script takes: the module it is taken from, and where."""

    module: str
    name: str
    place: str


@dataclass(frozen=True)
class Called:
    """A call of a class of the original or of a subclass (`own`): settings with plain values, and names of `others`."""

    name: str
    settings: tuple[tuple[str, object], ...]
    others: tuple[str, ...]
    own: bool
    place: str


@dataclass(frozen=True)
class Derived:
    """A class that a script builds upon a class of the original (`base`), with the methods that it defines."""

    name: str
    base: str
    methods: tuple[str, ...]
    place: str


@dataclass
class Reading:
    """What was found, in the order of the source."""

    taken: list[Taken] = field(default_factory=list)
    called: list[Called] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def read_script(script: Path) -> Reading:
    """Read a script and the modules beside it that it imports; `unread` names the files that are no Python."""
    reading = Reading()
    seen: set[Path] = set()
    waiting = [script]
    while waiting:
        file = waiting.pop(0)
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        shown = file.name if file == script else os.path.relpath(file, script.parent)
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError) as error:
            reading.unread.append(f"{shown}: {error}")
        else:
            visitor = _Visitor(shown, reading)
            visitor.visit(tree)
            waiting.extend(_beside(file, script.parent, visitor.imported))
    return reading


def file_of_module(name: str) -> Path | None:
    """Return the file that `python -m name` would run, without importing the packages around it; None if not found."""
    top, *parts = name.split(".")
    spec = PathFinder.find_spec(top, [os.getcwd(), *sys.path])  # noqa: PTH109 (what Python puts on its path)
    if spec is None or spec.origin is None:
        return None
    if spec.submodule_search_locations is None:
        return None if parts else Path(spec.origin)
    place = Path(spec.submodule_search_locations[0], *parts)
    return next((file for file in (place / "__main__.py", place.with_suffix(".py")) if file.is_file()), None)


def _beside(file: Path, root: Path, imported: list[tuple[int, str]]) -> Iterator[Path]:
    """Yield the files of imported modules that lie in the script's folder; `level` counts the dots of an import."""
    for level, name in imported:
        folder = file.parents[level - 1] if level else root
        place = folder.joinpath(*name.split("."))
        yield from (place.with_suffix(".py"), place / "__init__.py")


class _Visitor(ast.NodeVisitor):
    """Follows names of the original through one file."""

    def __init__(self, file: str, reading: Reading) -> None:
        self._file = file
        self._reading = reading
        # A name in the file -> the dotted name of the original that it stands for; classes built upon one.
        self._bound: dict[str, str] = {}
        self._built: dict[str, str] = {}
        self.imported: list[tuple[int, str]] = []

    def visit_Import(self, node: ast.Import) -> None:
        """Bind modules of the original."""
        for alias in node.names:
            if _of_original(alias.name):
                self._bound[alias.asname or PACKAGE] = alias.name if alias.asname else PACKAGE
            else:
                self.imported.append((0, alias.name))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Take names from the original."""
        module = node.module or ""
        if node.level or not _of_original(module):
            inner = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            self.imported.extend((node.level, name) for name in (module, *inner) if name)
            return
        for alias in node.names:
            whole = f"{module}.{alias.name}"
            self._bound[alias.asname or alias.name] = whole
            if whole not in HOMES:
                self._take(whole, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Take what is reached through a module of the original."""
        whole = self._dotted(node)
        if whole is None:
            self.generic_visit(node)
        else:
            self._take(whole, node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Remember what a class is built upon, and what it defines."""
        methods = tuple(line.name for line in node.body if isinstance(line, ast.FunctionDef))
        for base in node.bases:
            whole = self._dotted(base)
            below = whole.rpartition(".")[2] if whole else self._built.get(ast.unparse(base))
            if below:
                self._built[node.name] = below
                self._reading.derived.append(Derived(node.name, below, methods, self._place(node)))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Take down the settings of a call."""
        whole = self._dotted(node.func)
        own = self._built.get(ast.unparse(node.func))
        if whole or own:
            written = {word.arg: word.value for word in node.keywords if word.arg is not None}
            values = {name: value.value for name, value in written.items() if isinstance(value, ast.Constant)}
            others = tuple(name for name in written if name not in values)
            name = own or (whole or "").rpartition(".")[2]
            found = Called(name, tuple(values.items()), others, own is not None, self._place(node))
            self._reading.called.append(found)
        self.generic_visit(node)

    def _dotted(self, node: ast.AST) -> str | None:
        """Return the dotted name of the original that an expression stands for, or None."""
        if isinstance(node, ast.Name):
            return self._bound.get(node.id)
        if isinstance(node, ast.Attribute):
            before = self._dotted(node.value)
            return None if before is None or not _is_module(before) else f"{before}.{node.attr}"
        return None

    def _take(self, whole: str, node: ast.stmt | ast.expr) -> None:
        module, _, name = whole.rpartition(".")
        self._reading.taken.append(Taken(module, name, self._place(node)))

    def _place(self, node: ast.stmt | ast.expr) -> str:
        return f"{self._file}:{node.lineno}"


def _of_original(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def _is_module(whole: str) -> bool:
    """Say whether a dotted name of the original is a module or may be one: modules are written small."""
    return whole.rpartition(".")[2].islower()

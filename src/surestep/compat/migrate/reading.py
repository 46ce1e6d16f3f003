"""A Python file as it is read for migration: what each name in it stands for, and where everything is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from surestep.compat.migrate.settings import UNKNOWN
from surestep.errors import MigrationError
from surestep.optional import require

if TYPE_CHECKING:
    import libcst as cst

# Packages whose trainers and arguments are the original's, or come from them.
PACKAGES = {"transformers", "surestep", "trl", "sentence_transformers", "setfit", "optimum", "adapters", "peft"}
# What a class is, by the end of its name or of the name of what it comes from.
_KINDS = (("TrainingArguments", "arguments"), ("Trainer", "trainer"), ("Callback", "callback"))


def library() -> Any:
    """Return libcst, which reads Python with every space and comment in its place."""
    return require("libcst", "surestep migrate")


@dataclass
class Script:
    """A parsed file. `imported` has the package and the name behind each imported name; `kinds` what variables hold."""

    text: str
    module: cst.Module
    positions: Any
    starts: list[int]
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    literals: dict[str, list[tuple[str, cst.CSTNode]]] = field(default_factory=dict)

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return where a node begins and ends in the text."""
        place = self.positions[node]
        start, end = (self.starts[one.line - 1] + one.column for one in (place.start, place.end))
        return start, end

    def code(self, node: cst.CSTNode) -> str:
        """Return a node as it is written."""
        start, end = self.span(node)
        return self.text[start:end]

    def value(self, node: cst.CSTNode) -> Any:
        """Return the value of a literal; UNKNOWN for any other expression."""
        try:
            return ast.literal_eval(self.code(node))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return UNKNOWN

    def kind(self, name: str) -> str:
        """Return what a class is: "arguments", "trainer", "callback", or nothing known."""
        if name in self.classes:
            return next((kind for base in self.classes[name] if (kind := self.kind(base))), "")
        top = name.partition(".")[0]
        package, real = self.imported.get(top, ("", top))
        if package.partition(".")[0] not in PACKAGES and top in self.imported:
            return ""
        real = name.rpartition(".")[2] if "." in name else real
        if real.endswith("Config") and package.startswith("trl"):
            return "arguments"
        return next((kind for end, kind in _KINDS if real.endswith(end)), "")


def walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield a node and everything in it, in the order of the text."""
    yield node
    for child in node.children:
        yield from walk(child)


def dotted(node: cst.CSTNode) -> str:
    """Return `a.b.c` for names joined by points, and nothing for any other expression."""
    cst = library()
    if isinstance(node, cst.Name):
        return str(node.value)
    if isinstance(node, cst.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr.value}" if before else ""
    return ""


def read_script(text: str, name: str) -> Script:
    """Parse a file and learn what its names stand for."""
    cst = library()
    from libcst.metadata import MetadataWrapper, PositionProvider

    try:
        wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
    except cst.ParserSyntaxError as error:
        raise MigrationError(f"'{name}' is no Python: {_trouble(text, error)}.") from error
    starts = [0, *(line.end() for line in re.finditer(r"\r\n|\n|\r", text))]
    script = Script(text, wrapper.module, wrapper.resolve(PositionProvider), starts)
    for node in walk(script.module):
        if isinstance(node, cst.Import | cst.ImportFrom):
            _note_import(script, node)
        elif isinstance(node, cst.ClassDef):
            script.classes[node.name.value] = [dotted(base.value) for base in node.bases]
    for node in walk(script.module):
        if isinstance(node, cst.Assign):
            for target in node.targets:
                _note_assignment(script, target.target, node.value)
        elif isinstance(node, cst.AnnAssign) and node.value is not None:
            _note_assignment(script, node.target, node.value)
    return script


def _trouble(text: str, error: Any) -> str:
    """Say what is wrong with a text: Python itself knows better, where its own version reads the text at all."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError) as trouble:
        return f"{getattr(trouble, 'msg', trouble)} (line {getattr(trouble, 'lineno', error.raw_line)})"
    return f"line {error.raw_line} cannot be read"


def _note_import(script: Script, node: Any) -> None:
    cst = library()
    if isinstance(node.names, cst.ImportStar):
        return
    package = dotted(node.module) if isinstance(node, cst.ImportFrom) and node.module is not None else ""
    for one in node.names:
        name = dotted(one.name)
        own = one.asname.name.value if one.asname is not None else name.partition(".")[0]
        relative = "." if getattr(node, "relative", ()) else ""
        script.imported[own] = (relative + package, name) if isinstance(node, cst.ImportFrom) else (name, name)


def _note_assignment(script: Script, target: Any, value: Any) -> None:
    cst = library()
    name = dotted(target)
    if isinstance(value, cst.Call):
        callee = dotted(value.func)
        if name and (kind := script.kind(callee)):
            script.kinds[name] = kind
        parses = callee.rpartition(".")[2].startswith("parse_")
        targets = [one.value for one in target.elements] if isinstance(target, cst.Tuple) else [target]
        for one in map(dotted, targets):
            if parses and one.endswith("training_args"):
                script.kinds[one] = "arguments"
    if name and (keys := _keys(script, value)):
        script.literals[name] = keys


def _keys(script: Script, value: Any) -> list[tuple[str, cst.CSTNode]]:
    """Return the names in a dictionary that is written out, each with its place."""
    cst = library()
    if isinstance(value, cst.Dict):
        keys = [(script.value(one.key), one.key) for one in value.elements if isinstance(one, cst.DictElement)]
        return [(key, node) for key, node in keys if isinstance(key, str)]
    if isinstance(value, cst.Call) and dotted(value.func) == "dict":
        return [(one.keyword.value, one.keyword) for one in value.args if one.keyword is not None]
    return []


def keys_of(script: Script, value: Any) -> list[tuple[str, cst.CSTNode]]:
    """Return the names that `**value` hands over, where the dictionary is written out in the file."""
    return _keys(script, value) or script.literals.get(dotted(value), [])

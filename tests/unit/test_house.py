"""The rules of the house that no linter knows. Each test lists who breaks its rule."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "surestep"
FILES = sorted(SOURCE.rglob("*.py"))
# What the core needs; anything else is asked for where it is used.
CORE = {"numpy", "safetensors", "surestep", "torch"}
# Core as well, and slow to load: nothing that a training run loads may import them at its top.
CORE_ABOVE = {"pydantic", "pydantic_core", "rich", "typer", "yaml"}
BELOW = {"checkpoint", "config", "data", "engine", "losses", "metrics", "optim", "runtime", "trainer", "training"}
PICKLERS = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
PICKLING_CALLS = {"torch.save", "torch.load", "np.save", "np.load"}
# The one place where files of the original's are read, with pickle shut out.
FOREIGN_PICKLES = SOURCE / "checkpoint" / "foreign" / "pickles.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    return ((path, node) for path in FILES for node in ast.walk(tree(path)))


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 1)}"


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0]


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def imported(node: ast.AST) -> set[str]:
    """Return the top-level packages of an import statement."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def test_there_is_source_to_look_at() -> None:
    assert len(FILES) > 100


def test_files_are_rooms_of_at_most_500_lines() -> None:
    tests = Path(__file__).parents[1].rglob("*.py")
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in (*FILES, *tests)}

    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_functions_fit_on_a_screen() -> None:
    def length(node: Function) -> int:
        docstring = node.body[0] if is_text(node.body[0]) else None
        documented = 0 if docstring is None else (docstring.end_lineno or 0) - docstring.lineno + 1
        return (node.end_lineno or 0) - node.lineno + 1 - documented

    functions = [(length(node), place(path, node)) for path, node in nodes() if isinstance(node, Function)]
    long = [found for found in functions if found[0] > 60]

    assert len(long) < 0.01 * len(functions), sorted(long, reverse=True)


def test_no_error_is_swallowed() -> None:
    handlers = [(path, node) for path, node in nodes() if isinstance(node, ast.ExceptHandler)]

    assert handlers
    assert [
        place(path, node)
        for path, node in handlers
        if all(isinstance(line, ast.Pass) or is_text(line) for line in node.body)
    ] == []


def test_nothing_is_pickled() -> None:
    def pickles(path: Path, node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return ast.unparse(node) in PICKLING_CALLS and path != FOREIGN_PICKLES
        return bool(imported(node) & PICKLERS)

    assert [place(path, node) for path, node in nodes() if pickles(path, node)] == []


def test_the_originals_pickles_are_read_as_data_only() -> None:
    calls = [node for node in ast.walk(tree(FOREIGN_PICKLES)) if isinstance(node, ast.Call)]
    found = [call for call in calls if ast.unparse(call.func) in PICKLING_CALLS]

    assert [ast.unparse(call.func) for call in found] == ["torch.load"]
    assert {word.arg: ast.unparse(word.value) for word in found[0].keywords}["weights_only"] == "True"


def test_nothing_is_put_off() -> None:
    def tokens(path: Path) -> Iterator[tokenize.TokenInfo]:
        return tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)

    assert [
        f"{path.relative_to(SOURCE)}:{token.start[0]}"
        for path in FILES
        for token in tokens(path)
        if token.type in {tokenize.COMMENT, tokenize.STRING} and re.search(r"\b(TODO|FIXME|XXX)\b", token.string)
    ] == []


def test_packages_hold_a_docstring_only() -> None:
    # `surestep.compat.install()` is what people write in a notebook; `surestep.trainer` is a module of the original's.
    faces = {SOURCE, SOURCE / "compat", SOURCE / "trainer"}
    packages = [path for path in FILES if path.name == "__init__.py" and path.parent not in faces]

    assert [path for path in packages if len(tree(path).body) != 1 or not ast.get_docstring(tree(path))] == []


def undocumented(path: Path, body: list[ast.stmt]) -> Iterator[str]:
    """Yield the public definitions without a docstring. The inside of a function is its own affair."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            marks = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
            if not ast.get_docstring(node) and not marks & {"overload", "override", "setter", "deleter"}:
                yield f"{place(path, node)} {node.name}"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(path, node.body)


def test_everything_public_says_what_it_is_for() -> None:
    assert [path for path in FILES if not ast.get_docstring(tree(path))] == []
    assert [found for path in FILES for found in undocumented(path, tree(path).body)] == []


def at_the_top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported, but for what only type checkers see."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from at_the_top(node.orelse)
        elif not isinstance(node, Function):
            yield node
            inner = [getattr(node, part, []) for part in ("body", "orelse", "finalbody")]
            handlers = [handler.body for handler in getattr(node, "handlers", [])]
            for block in [*inner, *handlers]:
                yield from at_the_top(block)


def test_optional_packages_are_imported_where_they_are_used() -> None:
    def foreign(path: Path, node: ast.stmt) -> set[str]:
        allowed = CORE | sys.stdlib_module_names | (set() if layer(path) in BELOW else CORE_ABOVE)
        return imported(node) - allowed

    assert [
        f"{place(path, node)} {foreign(path, node)}"
        for path in FILES
        for node in at_the_top(tree(path).body)
        if foreign(path, node)
    ] == []


def test_nothing_is_imported_from_a_package_of_ours() -> None:
    parts = [path.parent.relative_to(SOURCE).parts for path in FILES if path.name == "__init__.py"]
    packages = {".".join(("surestep", *names)) for names in parts}

    def is_module(name: str) -> bool:
        return name in packages or (SOURCE.parent / Path(*name.split("."))).with_suffix(".py").exists()

    def from_a_package(path: Path, node: ast.AST) -> bool:
        if not isinstance(node, ast.ImportFrom) or node.module not in packages:
            return False
        if node.module == "surestep" and layer(path) in {"cli", "jobs", "tasks"}:
            # What stands above the trainer is built on the public face, as anybody's code is.
            return False
        return not all(is_module(f"{node.module}.{alias.name}") for alias in node.names)

    assert [place(path, node) for path, node in nodes() if from_a_package(path, node)] == []

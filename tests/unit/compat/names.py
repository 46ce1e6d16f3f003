"""The names that the original's training modules offer, read from its sources: what the tables must answer for."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from surestep.compat.homes import HOMES


@cache
def public_names(module: str) -> tuple[str, ...]:
    """Return what a module defines for others, in the order of its source; imports and loggers left out."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    names = dict.fromkeys(_defined(tree.body))
    return tuple(name for name in names if not name.startswith("_") and name != "logger")


def all_names() -> dict[str, tuple[str, ...]]:
    """Return the names of every module that the tables name."""
    return {module: public_names(module) for module in HOMES}


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.If | ast.Try):
            yield from _defined([*node.body, *node.orelse])

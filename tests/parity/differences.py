"""The rows of docs/differences.md, and the mark of a test that shows one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

DOCUMENT = Path(__file__).parents[2] / "docs" / "differences.md"
_ROW = re.compile(r"^\| ([A-Z]\d+) \|(.*)\|$", re.MULTILINE)
_MARK = re.compile(r"^@shows\(\"(\w+)\"\)$", re.MULTILINE)

F = TypeVar("F", bound=Callable[..., object])


@cache
def rows() -> dict[str, list[str]]:
    """Return the cells of each row by its id."""
    found = _ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert len(found) == len({name for name, _ in found}), "an id stands twice in the document"
    return {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in found}


def shown() -> list[str]:
    """Return the ids that tests show, as often as they do."""
    files = sorted(Path(__file__).parent.glob("test_differences*.py"))
    return [name for file in files for name in _MARK.findall(file.read_text(encoding="utf-8"))]


def shows(name: str) -> Callable[[F], F]:
    """Mark a test as the one that shows a row."""
    assert name in rows(), f"docs/differences.md has no row {name}"
    return lambda test: test

"""Notebooks in today's spelling: their code cells are one script, and nothing else of the file is touched.

The cells are read together, since a name of one is used in others. What IPython adds to Python (magics, shell commands,
help) is covered while they are read, and stays as it is. A cell that changes is written anew in its place in the JSON,
line by line, so that a difference shows what changed and no more.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from surestep.compat.migrate.edits import Draft, Edit, Migration, Note, applied
from surestep.compat.migrate.python import draft_python
from surestep.compat.migrate.reading import library
from surestep.errors import MigrationError

_DECODER = json.JSONDecoder()
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_SPACE = re.compile(r"[ \t\r\n]*")
# Magics of a whole cell under which there is Python; under all others is something else.
_PYTHON_BELOW = re.compile(r"%%(time|timeit|capture|prun)\b")
# A line of IPython's own: a magic, a command of the shell, or a question; a backslash at its end goes on.
_OWN_LINE = re.compile(r"(?m)^[ \t]*([%!?](?:[^\n]*\\\n)*[^\n]*|[\w.]+\?\??[ \t]*$)")
# The same to the right of an assignment.
_OWN_VALUE = re.compile(r"(?m)^[ \t]*[\w., ]+=[ \t]*([%!](?:[^\n]*\\\n)*[^\n]*)")


@dataclass(frozen=True)
class _Line:
    """A piece of a cell's source: where it stands in the file, and its text."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Cell:
    """A code cell: its number among all cells, its source in the file, and where that stands in the joined script."""

    number: int
    start: int
    end: int
    lines: tuple[_Line, ...]
    offset: int

    @property
    def text(self) -> str:
        return "".join(line.text for line in self.lines)

    def holds(self, edit: Edit) -> bool:
        return self.offset <= edit.start and edit.end <= self.offset + len(self.text)


def migrate_notebook(text: str, name: str, *, imports: bool = False) -> Migration:
    """Return a notebook in today's spelling, and notes that name the cell and the line of the file."""
    cells = _read(text, name)
    readable, left = _joined(cells)
    draft = draft_python(readable, name, imports=imports)
    after = text
    for cell in reversed(cells):
        edits = [_moved(edit, -cell.offset) for edit in draft.edits if cell.holds(edit)]
        changed = applied(cell.text, edits) if edits else cell.text
        if changed != cell.text:
            after = after[: cell.start] + _written(text, cell, changed) + after[cell.end :]
    done = _placed(text, cells, draft, draft.done)
    return Migration(text, after, done, sorted({*_placed(text, cells, draft, draft.left), *_unread(text, left)}))


# The file


def _read(text: str, name: str) -> list[_Cell]:
    """Return the code cells of a notebook, with their places in the file and in the script that they make together."""
    try:
        notebook = json.loads(text)
    except ValueError as error:
        raise MigrationError(f"'{name}' is no notebook: {error}.") from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise MigrationError(
            f"'{name}' is no notebook of today's format: it has no cells. Open an older one in Jupyter and save it."
        )
    language = _language(notebook.get("metadata") or {})
    if language != "python":
        raise MigrationError(f"'{name}' is a notebook of {language}, and no Python.")
    cells: list[_Cell] = []
    offset = 0
    for number, (start, _) in enumerate(_items(text, _member(text, _space(text, 0), "cells")), 1):
        if _value(text, _member(text, start, "cell_type")) == "code":
            source = _member(text, start, "source")
            cell = _Cell(number, source, _DECODER.raw_decode(text, source)[1], tuple(_lines(text, source)), offset)
            cells.append(cell)
            offset += len(cell.text) + 1
    return cells


def _language(metadata: dict[str, Any]) -> str:
    stated = (metadata.get("language_info") or {}).get("name") or (metadata.get("kernelspec") or {}).get("language")
    return str(stated or "python").lower()


def _lines(text: str, source: int) -> Iterator[_Line]:
    """Yield the lines of a source, which is a text or a list of them."""
    places = _items(text, source) if text[source] == "[" else [(source, _DECODER.raw_decode(text, source)[1])]
    for start, end in places:
        yield _Line(start, end, _value(text, start))


def _written(text: str, cell: _Cell, changed: str) -> str:
    """Return the source of a cell as JSON, laid out as before; lines that stay are written as they were."""
    plain = text.isascii()
    if text[cell.start] != "[":
        return json.dumps(changed, ensure_ascii=plain)
    first, last = cell.lines[0], cell.lines[-1]
    opening, closing = text[cell.start + 1 : first.start], text[last.end : cell.end]
    between = text[first.end : cell.lines[1].start] if len(cell.lines) > 1 else "," + (opening or " ")
    known = {line.text: text[line.start : line.end] for line in cell.lines}
    lines = changed.splitlines(keepends=True) if "\n" in changed else [changed]
    return (
        f"[{opening}{between.join(known.get(line) or json.dumps(line, ensure_ascii=plain) for line in lines)}{closing}"
    )


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _value(text: str, at: int) -> Any:
    return _DECODER.raw_decode(text, at)[0]


def _items(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Yield where the items of the list at a place begin and end."""
    at = _space(text, at + 1)
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        yield at, end
        at = _space(text, end)
        at = _space(text, at + 1) if text[at] == "," else at


def _member(text: str, at: int, name: str) -> int:
    """Return where the value of a key begins, in the object at a place."""
    at = _space(text, at + 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        start = _space(text, _space(text, end) + 1)
        if key == name:
            return start
        at = _space(text, _DECODER.raw_decode(text, start)[1])
        at = _space(text, at + 1) if text[at] == "," else at
    raise MigrationError(f"The notebook has a cell without '{name}'.")


# The script


def _joined(cells: list[_Cell]) -> tuple[str, list[tuple[_Cell, int]]]:
    """Return the cells as one script, each as long as it is; with those that cannot be read, and the line of each."""
    left, parts = [], []
    for cell in cells:
        readable = _readable(cell.text)
        trouble = 0 if readable is None else _trouble(readable)
        if trouble:
            left.append((cell, trouble))
        parts.append(_covered(cell.text) if readable is None or trouble else readable)
    return "".join(f"{part}\n" for part in parts), left


def _readable(source: str) -> str | None:
    """Return a cell with IPython's own covered, None where it is in another language."""
    if source.lstrip().startswith("%%") and not _PYTHON_BELOW.match(source.lstrip()):
        return None
    if not _trouble(source):
        return source
    for pattern in (_OWN_LINE, _OWN_VALUE):
        source = pattern.sub(_as_number, source)
    return source


def _as_number(found: re.Match[str]) -> str:
    """Put a number in the place of what only IPython reads; the text stays as long, and its lines where they are."""
    before, own = found[0][: found.start(1) - found.start()], found[1]
    return before + "0" + _covered(own)[1:]


def _covered(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _trouble(source: str) -> int:
    """Return the first line that is no Python, 0 where all are."""
    cst = library()
    try:
        cst.parse_module(source)
    except cst.ParserSyntaxError as error:
        return int(error.raw_line)
    return 0


# What is told


def _moved(edit: Edit, by: int) -> Edit:
    return Edit(edit.start + by, edit.end + by, edit.text)


def _placed(text: str, cells: list[_Cell], draft: Draft, notes: list[Note]) -> list[Note]:
    """Return notes of the script as notes of the file, sorted."""
    firsts = [draft.line(cell.offset) for cell in cells]
    placed = set()
    for note in notes:
        place = bisect.bisect_right(firsts, note.line) - 1
        placed.add(_note(text, cells[place], note.line - firsts[place], note.text))
    return sorted(placed)


def _unread(text: str, left: list[tuple[_Cell, int]]) -> list[Note]:
    return [_note(text, cell, line - 1, "no Python, so that the cell is left as it is") for cell, line in left]


def _note(text: str, cell: _Cell, line: int, said: str) -> Note:
    start = cell.lines[line].start if line < len(cell.lines) else cell.start
    return Note(text.count("\n", 0, start) + 1, f"cell {cell.number}, line {line + 1}: {said}")

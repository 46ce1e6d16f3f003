"""Changes to a text that leave everything else of it as it is, and what is told about them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Edit:
    """One change: the characters from `start` to `end` become `text`; None takes an item out of its list."""

    start: int
    end: int
    text: str | None


@dataclass(frozen=True, order=True)
class Note:
    """What is told of a line; lines count from 1."""

    line: int
    text: str


@dataclass
class Migration:
    """What became of one file: its text of today, what was done, and what is left to its author."""

    before: str
    after: str
    done: list[Note] = field(default_factory=list)
    left: list[Note] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the text is another one."""
        return self.before != self.after


@dataclass
class Draft:
    """Changes and notes as they are collected. `trailing` says whether the language takes a comma after a last item."""

    text: str
    trailing: bool = True
    edits: list[Edit] = field(default_factory=list)
    done: list[Note] = field(default_factory=list)
    left: list[Note] = field(default_factory=list)

    def replace(self, start: int, end: int, text: str, note: str = "") -> None:
        """Put `text` in the place of a span."""
        self.edits.append(Edit(start, end, text))
        if note:
            self.done.append(Note(self.line(start), note))

    def insert(self, at: int, text: str, note: str = "") -> None:
        """Put `text` before a position."""
        self.replace(at, at, text, note)

    def remove(self, start: int, end: int, note: str = "") -> None:
        """Take an item out of a list, with its comma; with its line where it has one of its own."""
        self.edits.append(Edit(start, end, None))
        if note:
            self.done.append(Note(self.line(start), note))

    def leave(self, start: int, note: str) -> None:
        """Tell what could not be done."""
        self.left.append(Note(self.line(start), note))

    def line(self, position: int) -> int:
        """Return the line of a position."""
        return self.text.count("\n", 0, position) + 1

    def finish(self) -> Migration:
        """Return the text with every change made."""
        after = applied(self.text, self.edits, trailing=self.trailing)
        return Migration(self.text, after, sorted(set(self.done)), sorted(set(self.left)))


def applied(text: str, edits: Iterable[Edit], *, trailing: bool = True) -> str:
    """Make the changes from the end to the beginning, so that positions before them stay right.

    What is changed within something that goes, or that is written anew, is left out.
    """
    every = list(dict.fromkeys(edits))
    kept = [edit for edit in every if not any(_within(edit, outer) for outer in every)]
    order = sorted(range(len(kept)), key=lambda index: (kept[index].start, kept[index].end, index), reverse=True)
    for edit in (kept[index] for index in order):
        start, end = (
            (edit.start, edit.end) if edit.text is not None else item_span(text, edit.start, edit.end, trailing)
        )
        text = text[:start] + (edit.text or "") + text[end:]
    return text


def _within(edit: Edit, outer: Edit) -> bool:
    if edit.start == edit.end:
        return outer.start < edit.start < outer.end
    return edit != outer and outer.start <= edit.start and edit.end <= outer.end


_COMMA = re.compile(r"\s*,")
_REST_OF_LINE = re.compile(r"[ \t]*(#[^\n]*)?(\r?\n|$)")
_SPACE = re.compile(r"[ \t]*")


def item_span(text: str, start: int, end: int, trailing: bool = True) -> tuple[int, int]:
    """Return what goes with an item of a list in brackets: its line and its comment, or one of the commas beside it."""
    comma = _COMMA.match(text, end)
    after = comma.end() if comma else end
    line = text.rfind("\n", 0, start) + 1
    rest = _REST_OF_LINE.match(text, after)
    if (comma or trailing) and rest and not text[line:start].strip():
        return line, rest.end()
    if comma and rest:
        return len(text[:start].rstrip(" \t")), after
    if comma:
        space = _SPACE.match(text, after)
        assert space is not None
        return start, space.end()
    before = text[:start].rstrip()
    return (len(before) - 1, end) if before.endswith(",") else (start, end)

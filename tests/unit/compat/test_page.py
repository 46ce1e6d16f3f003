"""The page of compatibility: what it says is served is there, and tried somewhere. The surface holds its text."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest
from tests.parity.differences import rows
from tests.unit.compat import page
from tests.unit.compat.names import public_names

import surestep
from surestep.compat.homes import HOMES
from surestep.config.unserved import UNSERVED

TESTS = Path(__file__).parents[2]
SOURCE = Path(surestep.__file__).parent
# Settings for scripts that drive the trainer: it does not read them itself. The last is done always (row C5).
_SCRIPTS = {"do_predict", "do_train", "resume_from_checkpoint", "restore_callback_states_from_checkpoint"}


def test_ids_and_names_in_its_notes_are_known() -> None:
    assert {id_ for ids in page.SILENT.values() for id_ in ids} <= rows().keys()
    names = {row.name for found in (page.methods(), page.arguments(), page.constructor()) for row in found}
    assert {*page.SILENT, *page.NOTES} <= names | {name for module in HOMES for name in HOMES[module]}


@cache
def words_of_the_tests() -> frozenset[str]:
    """Return every word of the tests, but for those that only list names."""
    lists = {"page.py", "names.py", "paths.py", "test_page.py", "test_homes.py", "test_paths.py"}
    files = [path for path in TESTS.rglob("*.py") if not (path.parent.name == "compat" and path.name in lists)]
    return frozenset(word for path in files for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("module", HOMES)
def test_every_name_that_is_served_is_tried_by_a_test(module: str) -> None:
    # Trackers and questions after packages are tried by what `report_to` and the original call them.
    tried = ("surestep.callbacks.trackers.", "surestep.compat.helpers.available")
    served = [name for name, home in HOMES[module].items() if not home.startswith(tried)]

    assert [name for name in served if name not in words_of_the_tests()] == []


def test_every_method_that_is_served_is_tried_by_a_test() -> None:
    served = [row.name for row in page.methods() if row.answer in {page.SERVED, page.DIFFERENTLY}]

    assert [name for name in served if name not in words_of_the_tests()] == []


def test_every_argument_that_is_served_is_read() -> None:
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[:2] not in {("config", "topics"), ("config", "unserved.py")}
    )
    served = {field.name for field in dataclasses.fields(surestep.Seq2SeqTrainingArguments)} - {*UNSERVED, *_SCRIPTS}

    assert sorted(name for name in served if not re.search(rf"\b{name}\b", code)) == []


def test_a_name_that_the_original_gains_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps the page from rotting: a name of tomorrow's version has no answer."""
    monkeypatch.setattr(page, "public_names", lambda module: (*public_names(module), "of_tomorrow"))

    with pytest.raises(KeyError, match=r"of_tomorrow|transformers"):
        page.text()

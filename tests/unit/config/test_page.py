"""The page of arguments says what the fields say."""

from __future__ import annotations

from tests.unit.config import page


def test_the_page_is_that_of_the_fields() -> None:
    written = page.PAGE.read_text(encoding="utf-8")

    assert written == page.text(), f"docs/arguments.md is not that of the fields: run {page.COMMAND}"


def test_every_argument_is_on_the_page() -> None:
    import dataclasses

    from surestep import Seq2SeqTrainingArguments

    names = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments) if field.init}

    assert {name for name in names if f"`{name}`" not in page.text()} == set()

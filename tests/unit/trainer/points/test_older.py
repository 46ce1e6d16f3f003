"""Attributes of older trainers: today's value, and a warning of the line that asks."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest
from tests.small import quick

from surestep.trainer.older_names import MEMBERS


@pytest.mark.parametrize("name", [*MEMBERS])
def test_an_older_attribute_is_todays_and_told_where_it_is_asked_for(tmp_path: Path, name: str) -> None:
    trainer = quick(tmp_path)
    with pytest.warns(
        FutureWarning, match=f"trainer.{name} is of an older form: write trainer.{MEMBERS[name]}"
    ) as told:
        found = getattr(trainer, name)
    assert [warning.filename for warning in told] == [__file__]
    assert found == attrgetter(MEMBERS[name])(trainer)


def test_a_tokenizer_of_its_own_is_told_of_no_more(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    with pytest.warns(FutureWarning, match=r"write trainer\.processing_class = \.\.\."):
        trainer.tokenizer = "words"
    assert (trainer.tokenizer, trainer.processing_class) == ("words", "words")

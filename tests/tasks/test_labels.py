"""Classes found in columns of labels, and the columns that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from surestep.errors import DataError
from surestep.tasks.labels import infer_labels


@pytest.mark.parametrize(
    ("column", "names", "ids"),
    [
        (["spam", "ham", "spam"], ("ham", "spam"), [1, 0, 1]),
        ([10, 2, 10], ("2", "10"), [1, 0, 1]),
        ([1.0, 0.0], ("0", "1"), [1, 0]),
        ([True, False], ("False", "True"), [1, 0]),
        (["class 10", "class 9"], ("class 9", "class 10"), [1, 0]),
        ([" a", "b "], ("a", "b"), [0, 1]),
        ([5, -1], ("-1", "5"), [1, 0]),
    ],
)
def test_classes_are_found_in_natural_order(column: list[Any], names: tuple[str, ...], ids: list[int]) -> None:
    labels = infer_labels(column, "label")
    assert labels.names == names
    assert labels.encode(column, "label").tolist() == ids


def test_declared_names_fix_the_order_and_may_name_classes_that_do_not_occur() -> None:
    labels = infer_labels(["b", "c"], "label", declared=["c", "b", "a"])
    assert labels.names == ("c", "b", "a")
    assert labels.encode(["b", "c"], "label").tolist() == [1, 0]


def test_names_stand_for_integers_in_their_place() -> None:
    labels = infer_labels([0, 2, 0], "label", source_names=["cat", "dog", "bird"])
    assert labels.names == ("cat", "dog", "bird")
    assert labels.encode([2, 0], "label").tolist() == [2, 0]


def test_declared_names_win_over_those_of_the_source() -> None:
    assert infer_labels([0, 1], "label", ["zero", "one"], ["no", "yes"]).names == ("no", "yes")


@pytest.mark.parametrize(
    ("column", "declared", "said"),
    [
        ([1, None, 0, float("nan")], None, "2 of 4 rows have no label (rows 1, 3)"),
        (["a", ""], None, "1 of 2 rows have no label (rows 1)"),
        ([None] * 7 + [1], None, "(rows 0, 1, 2, 3, 4, ...)"),
        (["a", "a"], None, "every label is 'a'"),
        (["ham", "spm"], ["ham", "spam"], "'spm' is none of the 2 class names: did you mean 'spam'?"),
        ([0, 2], ["ham", "spam"], "'2' is none of the 2 class names"),
        ([0, 1], ["ham", "ham"], "name a class twice"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(column: list[Any], declared: list[str] | None, said: str) -> None:
    with pytest.raises(DataError) as caught:
        infer_labels(column, "the column", declared=declared)
    assert str(caught.value).startswith("the column: ")
    assert said in str(caught.value)


def test_a_label_that_training_does_not_know_is_named_with_its_row() -> None:
    labels = infer_labels(["ham", "spam"], "train")
    with pytest.raises(DataError, match=r"the label 'spma' \(row 2\).*did you mean 'spam'"):
        labels.encode(["ham", "spam", "spma"], "validation")

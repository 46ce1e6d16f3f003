"""The range of a table's labels, over chunks, selections and lists, compared with a pass over the rows."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pytest

from surestep.data import labels as module
from surestep.data.labels import label_range


def table(labels: Any, **more: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"labels": labels}, **more)


def by_rows(dataset: datasets.Dataset) -> tuple[int, int]:
    values = [value for row in dataset for value in np.ravel(row["labels"]) if value != -100]
    return int(min(values)), int(max(values))


@pytest.mark.parametrize("rows", [3, 1000])
def test_the_range_is_that_of_all_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "_ROWS", rows)
    numbers = np.random.default_rng(0).integers(-3, 90, 50)
    whole = datasets.concatenate_datasets([table(numbers), table([-100, 95]), table([-100])])
    part = whole.shuffle(seed=1).select(range(0, 40, 3))
    lists = table([[1, 2, -100], [], [7]])
    arrays = datasets.Dataset.from_dict(
        {"labels": [[[0, 3], [4, 1]]] * 4}, features=datasets.Features({"labels": datasets.Array2D((2, 2), "int32")})
    )

    assert label_range(whole, "labels") == by_rows(whole) == (numbers.min(), 95)
    assert label_range(part, "labels") == by_rows(part)
    assert label_range(lists, "labels") == (1, 7)
    assert label_range(whole.with_format("torch"), "labels") == by_rows(whole)
    assert label_range(table([5, 6]), "labels", ignored=6) == (5, 5)
    classes = datasets.Features({"labels": datasets.ClassLabel(names=["a", "b"])})
    assert label_range(table([0, 1], features=classes), "labels") == (0, 1)
    assert label_range(arrays, "labels") in {None, (0, 4)}


@pytest.mark.parametrize(
    "dataset",
    [
        table([0.5, 1.5]),
        table(["a", "b"]),
        table([-100, -100]),
        table([]),
        table([1, 2]).rename_column("labels", "other"),
        table([1, 2]).with_transform(lambda batch: batch),
    ],
)
def test_what_holds_no_whole_numbers_has_no_range(dataset: datasets.Dataset) -> None:
    assert label_range(dataset, "labels") is None

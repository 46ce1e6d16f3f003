"""What counts as a difference between two checkpoints, and how large it is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surestep.checkpoint.contents import Contents
from surestep.checkpoint.differing import Unlike, compare
from surestep.checkpoint.layout import PROGRESS, TIME_USED, TRAINING_ARGUMENTS
from surestep.checkpoint.tree import write_tree

NAME = PROGRESS.removesuffix(".json")


def holding(folder: Path, tree: Any = None, **arguments: Any) -> Contents:
    """Return a checkpoint with a tree, and arguments where some are given."""
    if tree is not None:
        write_tree(folder, NAME, tree)
    folder.mkdir(exist_ok=True)
    if arguments:
        (folder / TRAINING_ARGUMENTS).write_text(json.dumps(arguments))
    return Contents(folder)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), 0.5),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), None),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, math.nan]), math.inf),
        (torch.tensor([0.0]), torch.tensor([-0.0]), 0.0),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float16), 0.0),
        (torch.zeros(0), torch.zeros(0, dtype=torch.int64), None),
        (torch.zeros(2), torch.zeros(3), None),
        (torch.zeros(2, dtype=torch.complex64), torch.ones(2, dtype=torch.complex64), None),
        (torch.tensor([2**53]), torch.tensor([2**53 + 2]), 2.0),
        (np.arange(3), np.arange(3.0), None),
        (np.arange(3), np.array([0, 1, 3]), None),
        (1, 1.0, None),
        (1, True, None),
        ("x" * 100, "x" * 101, None),
    ],
)
def test_values(one: Any, other: Any, distance: float | None, tmp_path: Path) -> None:
    tree = {"nested": [{"value": one}, "same"]}
    first = holding(tmp_path / "one", tree)
    assert list(compare(first, first)) == []
    found = list(compare(first, holding(tmp_path / "other", {"nested": [{"value": other}, "same"]})))
    equal = isinstance(one, torch.Tensor) and distance is None and bool(one.isnan().any())
    assert len(found) == (0 if equal else 1)
    for unlike in found:
        assert (unlike.part, unlike.name, unlike.distance) == (NAME, "nested.0.value", distance)
        assert len(unlike.first) < 80
        json.dumps(unlike.to_dict(), allow_nan=False)


def test_what_one_of_them_lacks(tmp_path: Path) -> None:
    one = holding(tmp_path / "one", {"a": 1, "b": 2}, learning_rate=0.1)
    other = holding(tmp_path / "other", {"a": 1})
    assert list(compare(one, other)) == [
        Unlike("arguments", "", "there", "missing"),
        Unlike(NAME, "b", "2", "missing"),
    ]
    assert [unlike.first for unlike in compare(other, one)] == ["missing", "missing"]
    assert list(compare(one, holding(tmp_path / "third", learning_rate=0.1))) == [Unlike(NAME, "", "there", "missing")]


def test_arguments_are_judged(tmp_path: Path) -> None:
    one = holding(tmp_path / "one", logging_steps=5, seed=1)
    other = holding(tmp_path / "other", logging_steps=6, seed=2)
    assert {(unlike.name, unlike.harmless) for unlike in compare(one, other)} == {
        ("logging_steps", True),
        ("seed", False),
    }


def test_the_clock_is_no_difference(tmp_path: Path) -> None:
    one, other = holding(tmp_path / "one", {"a": 1}), holding(tmp_path / "other", {"a": 1})
    write_tree(one.folder, TIME_USED, {"seconds": 3.5})
    write_tree(other.folder, TIME_USED, {"seconds": 4.5})
    assert list(compare(one, other)) == []

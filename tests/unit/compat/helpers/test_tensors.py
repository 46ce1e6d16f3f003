"""Nested tensors, compared with the original leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import trainer_pt_utils as theirs
from transformers import trainer_utils as their_utils

from surestep.compat.helpers import tensors as ours
from surestep.errors import DataError


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def arrays(*shape: int) -> Any:
    return numbers(*shape).numpy()


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)


PAIRS = {
    "vectors": (numbers(3), numbers(2)),
    "scalars": (torch.tensor(1.0), torch.tensor(2.0)),
    "narrower": (numbers(2, 3), numbers(4, 5)),
    "wider": (numbers(2, 5, 2), numbers(4, 3, 2)),
    "arrays": (arrays(2, 3), arrays(3, 3)),
    "ragged arrays": (arrays(2, 3), arrays(3, 1)),
    "array scalars": (np.array(1), np.array(2)),
    "whole numbers": (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64)),
    "nested": ({"a": (numbers(2, 3), [arrays(2)])}, {"a": (numbers(1, 4), [arrays(3)])}),
}


@pytest.mark.parametrize("padding", [-100, 0])
@pytest.mark.parametrize("name", PAIRS)
def test_joining(name: str, padding: int) -> None:
    assert same(ours.nested_concat(*PAIRS[name], padding), theirs.nested_concat(*PAIRS[name], padding))


@pytest.mark.parametrize(("one", "other"), [(numbers(2), [numbers(2)]), ("a", "b"), ({"a": numbers(1)}, (numbers(1),))])
def test_what_does_not_fit_is_not_joined(one: Any, other: Any) -> None:
    with pytest.raises((AssertionError, TypeError)):
        theirs.nested_concat(one, other)
    with pytest.raises(DataError, match=r"cannot be joined\. Give "):
        ours.nested_concat(one, other)


@pytest.mark.parametrize(
    ("name", "pair"), [("torch_pad_and_concatenate", "wider"), ("numpy_pad_and_concatenate", "ragged arrays")]
)
def test_each_kind_is_joined_by_a_name_of_its_own(name: str, pair: str) -> None:
    assert same(getattr(ours, name)(*PAIRS[pair]), getattr(theirs, name)(*PAIRS[pair]))


NESTED = {"x": (numbers(4, 2), [numbers(4)]), "y": numbers(4, 3, dtype=torch.bfloat16)}
HOST = [arrays(4, 2), (arrays(4, 3, 2),)]
CALLS: dict[str, Callable[[Any], Any]] = {
    "numpify": lambda room: room.nested_numpify(NESTED),
    "truncate": lambda room: room.nested_truncate(NESTED, 3),
    "truncate arrays": lambda room: room.nested_truncate(HOST, 1),
    "new like": lambda room: room.nested_new_like(HOST, 7),
    "new like, other padding": lambda room: room.nested_new_like(HOST[0], 7, padding_index=3),
    "expand": lambda room: room.expand_like(HOST[0], 5),
    "expand deep": lambda room: room.expand_like(HOST[1][0], 4, padding_index=1),
    "size of nested": lambda room: room.find_batch_size([{"a": torch.tensor(1)}, {"b": (arrays(6, 2),)}]),
    "size of nothing": lambda room: room.find_batch_size({"a": torch.tensor(1), "b": "text"}),
    "a scalar": lambda room: room.atleast_1d(torch.tensor(2.0)),
    "an array's scalar": lambda room: room.atleast_1d(np.array(2.0)),
    "a matrix": lambda room: room.atleast_1d(numbers(2, 2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_structure_becomes_what_it_becomes_there(name: str) -> None:
    assert same(CALLS[name](ours), CALLS[name](theirs))


def test_detaching_cuts_every_leaf_off() -> None:
    leaf = numbers(2).requires_grad_()
    cut = ours.nested_detach({"a": [leaf * 2], "b": "text"})

    assert not cut["a"][0].requires_grad
    assert same(cut, theirs.nested_detach({"a": [leaf * 2], "b": "text"}))


def test_metrics_become_plain_numbers() -> None:
    metrics = {"a": np.float32(0.5), "b": [torch.tensor([2.0]), np.int64(3)], "c": ("text", arrays(2).tolist())}

    assert same(ours.denumpify_detensorize(metrics), their_utils.denumpify_detensorize(metrics))


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("move_after", [{0, 2}, set(), {0, 1, 2}])
def test_a_container_holds_what_the_originals_holds(joined: bool, move_after: set[int]) -> None:
    one, other = (room.EvalLoopContainer(joined, padding_index=-7) for room in (ours, theirs))
    for step, width in enumerate((3, 5, 2)):
        for container in (one, other):
            container.add((numbers(2, width), {"loss": numbers(2)}))
            if step in move_after:
                container.to_cpu_and_numpy()

    assert same(one.get_arrays(), other.get_arrays())
    assert ours.EvalLoopContainer().get_arrays() is None

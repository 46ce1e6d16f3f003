"""Walking nested structures, compared with what the original's helpers do."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import BatchEncoding
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_pt_utils import find_batch_size, nested_detach, nested_numpify

from surestep.runtime.nested import batch_length, detach, leaves, map_structure, to_numpy, to_plain


class Pair(NamedTuple):
    one: Any
    other: Any


def numbers() -> list[Any]:
    return [
        7,
        [1, (2, 3)],
        {"a": 1, "b": [2]},
        OrderedDict(b=1, a=2),
        Pair(1, Pair(2, 3)),
        (),
        {},
        [],
    ]


@pytest.mark.parametrize("data", numbers(), ids=repr)
def test_leaves_are_changed_and_containers_are_not(data: Any) -> None:
    changed = map_structure(lambda leaf: leaf + 10, data)

    assert type(changed) is type(data)
    assert list(leaves(changed)) == [leaf + 10 for leaf in leaves(data)]
    assert map_structure(lambda leaf: leaf - 10, changed) == data


def test_what_models_and_tokenizers_return_keeps_its_type() -> None:
    output = SequenceClassifierOutput(loss=torch.ones(()), logits=torch.ones(2))
    batch = BatchEncoding({"input_ids": torch.ones(2)})

    assert type(map_structure(lambda leaf: leaf * 2, output)) is SequenceClassifierOutput
    assert map_structure(lambda leaf: leaf * 2, output).logits.tolist() == [2, 2]
    assert type(map_structure(lambda leaf: leaf * 2, batch)) is BatchEncoding


def nested() -> Any:
    half = torch.tensor([1.5, 2.25], dtype=torch.bfloat16)
    return {"a": torch.ones(2, requires_grad=True) * 2, "b": [(half,), torch.tensor(3)]}


def test_detached_as_in_the_original() -> None:
    data = {"a": torch.ones(2, requires_grad=True) * 2, "b": (torch.ones(1, requires_grad=True),)}
    ours, theirs = detach(data), nested_detach(data)

    for one, other in zip(leaves(ours), leaves(theirs), strict=True):
        assert not one.requires_grad
        assert torch.equal(one, other)
    assert detach([1, "text", None]) == [1, "text", None]


def test_arrays_as_in_the_original() -> None:
    ours, theirs = to_numpy(nested()), nested_numpify(nested_detach(nested()))

    for one, other in zip(leaves(ours), leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert to_numpy(["text", 1]) == ["text", 1]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (torch.tensor(2.5), 2.5),
        (torch.tensor([[4]]), 4),
        ("text", "text"),
        (None, None),
        ([np.float64(1.0), {"a": torch.tensor(1)}], [1.0, {"a": 1}]),
    ],
    ids=str,
)
def test_numbers_become_plain(value: Any, plain: Any) -> None:
    assert to_plain(value) == plain
    assert type(to_plain(value)) is type(plain)


def test_a_tensor_of_many_stays_one() -> None:
    assert torch.equal(to_plain(torch.ones(2)), torch.ones(2))


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (torch.ones(3, 2), 3),
        ({"a": torch.ones(4)}, 4),
        ({"a": torch.tensor(1), "b": [torch.ones(5, 1)]}, 5),
        (({"a": torch.ones(2)}, torch.ones(9)), 2),
        (BatchEncoding({"input_ids": torch.ones(6, 1)}), 6),
    ],
    ids=["tensor", "dict", "scalar first", "nested", "encoding"],
)
def test_the_length_of_a_batch_as_in_the_original(data: Any, length: int) -> None:
    assert batch_length(data) == find_batch_size(data) == length


@pytest.mark.parametrize("data", [torch.tensor(1), "text", {}, [1, 2], None])
def test_a_batch_without_a_dimension_has_no_length(data: Any) -> None:
    assert batch_length(data) is None


def test_an_array_has_a_length_too() -> None:
    assert batch_length({"a": np.ones((7, 2))}) == 7

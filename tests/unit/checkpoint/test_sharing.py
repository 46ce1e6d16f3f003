"""Which tensors share memory, against a count of bytes."""

from __future__ import annotations

import pytest
import torch

from surestep.checkpoint.sharing import extent, overlapping, same_view

BASE = torch.arange(24.0)
VIEWS = {
    "whole": BASE,
    "head": BASE[:4],
    "tail": BASE[20:],
    "matrix": BASE[4:16].view(3, 4).t(),
    "every third": BASE[::3],
    "one": BASE[7],
    "expanded": BASE[3:4].expand(5),
    "words": BASE[2:6].view(torch.int16),
    "copy": BASE.clone(),
    "empty": BASE[5:5],
    "also empty": BASE[5:5],
}


def reached(tensor: torch.Tensor) -> set[int]:
    """Return the addresses of every byte of every element."""
    found: set[int] = set()
    for index in (
        torch.cartesian_prod(*(torch.arange(size) for size in tensor.shape)).reshape(-1, tensor.dim()).tolist()
    ):
        start = (
            tensor.data_ptr() + sum(i * s for i, s in zip(index, tensor.stride(), strict=True)) * tensor.element_size()
        )
        found |= set(range(start, start + tensor.element_size()))
    return found


@pytest.mark.parametrize("name", [name for name, view in VIEWS.items() if view.dim() and view.numel()])
def test_an_extent_holds_exactly_what_is_reached(name: str) -> None:
    view = VIEWS[name]
    origin = view.untyped_storage().data_ptr()
    bytes_reached = reached(view)
    assert extent(view) == (min(bytes_reached) - origin, max(bytes_reached) + 1 - origin)


def test_an_empty_tensor_reaches_nothing_and_shares_nothing() -> None:
    assert extent(BASE[5:5]) == (20, 20)
    assert overlapping({"a": BASE[5:5], "b": BASE[5:5], "c": BASE}) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["head", "tail", "copy"], [["head"], ["tail"], ["copy"]]),
        (["tail", "whole", "head"], [["tail", "whole", "head"]]),
        (["head", "matrix", "words"], [["head", "matrix", "words"]]),
        (["head", "matrix"], [["head"], ["matrix"]]),
        (["tail", "one", "matrix", "head", "expanded"], [["tail"], ["one", "matrix"], ["head", "expanded"]]),
    ],
)
def test_groups_are_those_that_share_a_byte(names: list[str], groups: list[list[str]]) -> None:
    assert overlapping({name: VIEWS[name] for name in names}) == groups


def test_tensors_without_ordinary_memory_stand_alone() -> None:
    sparse, meta = BASE.to_sparse(), torch.ones(2, device="meta")
    assert overlapping({"a": sparse, "b": sparse, "c": meta, "d": meta}) == [["a"], ["b"], ["c"], ["d"]]


def test_views_are_the_same_when_they_read_alike() -> None:
    numbers = torch.tensor([1 + 2j])
    assert same_view(BASE[2:4], BASE[2:4])
    assert not same_view(BASE[2:4], BASE[3:5])
    assert not same_view(BASE[:4].view(2, 2), BASE[:4].view(2, 2).t())
    assert not same_view(numbers, numbers.conj())
    assert not same_view(BASE[:2], BASE[:2].view(torch.int32))

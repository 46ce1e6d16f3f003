"""Small arrays lie side by side in few blocks, and are what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surestep.metrics.blocks import SMALL, Blocks, apart

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
DTYPES = st.sampled_from([np.bool_, np.int8, np.float16, np.float32, np.float64, np.int64, np.complex128])


@given(st.lists(st.tuples(SHAPES, DTYPES), max_size=20))
def test_arrays_are_kept_as_they_are(forms: list[tuple[Any, Any]]) -> None:
    generator, blocks = np.random.default_rng(0), Blocks()
    arrays = [(generator.random(shape) * 9).astype(dtype) for shape, dtype in forms]
    kept = [blocks.keep(array) for array in arrays]

    for one, other in zip(kept, arrays, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
        assert not np.shares_memory(one, other)
    for place, one in enumerate(kept):
        assert not any(np.shares_memory(one, other) for other in kept[:place])


def test_many_small_arrays_lie_in_few_blocks() -> None:
    blocks = Blocks()
    kept = [blocks.keep(np.full(100_000, number % 256, np.uint8)) for number in range(1000)]
    held = {id(array.base): array.base.nbytes for array in kept}

    assert [int(array[-1]) for array in kept] == [number % 256 for number in range(1000)]
    assert len(held) <= 30
    assert sum(held.values()) <= 1.3 * 100_000 * 1000


def test_a_block_goes_with_its_last_array() -> None:
    blocks = Blocks()
    one, other = blocks.keep(np.ones(3)), blocks.keep(np.ones(3))

    assert one.base is other.base


def test_what_is_large_or_holds_objects_stays_where_it_is() -> None:
    for array in (np.zeros(SMALL + 1, np.uint8), np.array(["a", None], dtype=object)):
        assert Blocks().keep(array) is array


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("size", [3, SMALL + 1])
def test_tensors_of_every_type_are_kept(dtype: torch.dtype, size: int) -> None:
    tensor = (torch.arange(2 * size) % 2).view(2, size).to(dtype).t()
    kept = Blocks().keep_tensor(tensor)

    assert kept.dtype == dtype
    assert torch.equal(kept.double(), tensor.double())


def test_a_part_of_a_larger_tensor_is_copied_out_of_it() -> None:
    whole = torch.arange(12.0).view(3, 4)
    part = apart(whole[:, 1:2])

    assert part.untyped_storage().nbytes() == 3 * 4
    assert part.tolist() == [[1], [5], [9]]
    assert apart(whole) is whole
    assert apart(whole.expand(2, 3, 4)).data_ptr() == whole.data_ptr()
    sparse = whole.to_sparse()
    assert apart(sparse) is sparse

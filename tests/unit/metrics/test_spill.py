"""Arrays beyond a limit lie on disk, come back equal, and leave nothing behind."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surestep.errors import DataError
from surestep.metrics.spill import Column, Store


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def filled(store: Store, arrays: list[Any]) -> Column:
    column = Column(store)
    for array in arrays:
        store.held += array.nbytes
        column.append(array)
    return column


def ragged(rows: list[int], widths: list[int], dtype: Any) -> list[Any]:
    generator = np.random.default_rng(0)
    return [(generator.random((row, width, 2)) * 100).astype(dtype) for row, width in zip(rows, widths, strict=True)]


SHAPES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=6)


@given(
    shapes=SHAPES,
    limit=st.sampled_from([None, 0, 100, 10**6]),
    dtype=st.sampled_from([np.float16, np.float32, np.int64, np.bool_]),
    shuffled=st.booleans(),
)
def test_what_is_on_disk_is_what_would_be_in_memory(shapes: Any, limit: Any, dtype: Any, shuffled: bool) -> None:
    arrays = ragged(*map(list, zip(*shapes, strict=True)), dtype)
    rows = sum(len(array) for array in arrays)
    order = np.random.default_rng(1).permutation(rows) if shuffled else None
    expected = filled(Store(), arrays).joined(-100, order)
    with Store(limit) as store:
        found = filled(store, arrays).joined(-100, order)
    with Store(limit) as store:
        apart = filled(store, arrays).separate()

    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    assert isinstance(found, np.memmap) is (limit is not None and sum(array.nbytes for array in arrays) > limit)
    for one, other in zip(apart, arrays, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == dtype
    start = 0
    places = np.arange(rows) if order is None else order
    for array in arrays:
        np.testing.assert_array_equal(found[places[start : start + len(array)], : array.shape[1]], array)
        start += len(array)


def test_what_lies_on_disk_can_be_changed_and_outlives_its_file(scratch: Path) -> None:
    with Store(0) as store:
        found = filled(store, [np.ones((2, 3)), np.ones((1, 3))]).joined(-100)
    found[0] = 7

    assert list(scratch.iterdir()) == []
    assert found.sum() == 7 * 3 + 6


def test_columns_share_the_limit() -> None:
    with Store(100) as store:
        one, other = (filled(store, [np.ones(size)]) for size in (10, 10))
        assert not one._file
        assert other._file
        one.flush()
        assert one._file
        assert not one._parts


def test_mixed_types_are_joined_as_numpy_joins_them() -> None:
    arrays = [np.ones((1, 2), np.float32), np.ones((2, 3), np.int64)]
    for limit in (None, 0):
        with Store(limit) as store:
            found = filled(store, arrays).joined(-100)
        assert found.dtype == np.float64
        assert found.tolist() == [[1, 1, -100], [1, 1, 1], [1, 1, 1]]


def test_objects_stay_in_memory() -> None:
    with Store(0) as store:
        column = filled(store, [np.array(["a", None], dtype=object), np.array(["b"], dtype=object)])
        assert column.joined(-100).tolist() == ["a", None, "b"]


@pytest.mark.parametrize("limit", [None, 0])
def test_shapes_that_cannot_be_joined_are_told(limit: int | None) -> None:
    with Store(limit) as store, pytest.raises(DataError, match=r"shapes that cannot be joined.*eval_do_concat_batches"):
        filled(store, [np.ones((1, 2, 1)), np.ones((1, 2, 5))]).joined(-100)


def test_nothing_is_left_after_an_error(scratch: Path) -> None:
    def fail(store: Store) -> None:
        with store:
            filled(store, [np.ones(3)])
            assert list(scratch.iterdir())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(Store(0))


@pytest.mark.parametrize("widths", [[64] * 32, [64, 32] * 16], ids=["even", "ragged"])
def test_joining_in_memory_needs_no_second_copy(widths: list[int]) -> None:
    size = sum(widths) * 1024 * 8
    full = len(widths) * max(widths) * 1024 * 8
    tracemalloc.start()
    column = Column(Store())
    for width in widths:
        column.append(np.ones((1024, width)))
    tracemalloc.reset_peak()
    column.joined(-100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # The allocator counts the whole of the target at once; the parts are given up block by block, of which a fifth may
    # be empty.
    assert peak <= 1.25 * size + full + 2**20


@pytest.mark.parametrize("widths", [[64] * 32, [64, 32] * 16], ids=["even", "ragged"])
def test_on_disk_a_batch_or_two_are_in_memory(widths: list[int]) -> None:
    tracemalloc.start()
    with Store(0) as store:
        column = Column(store)
        for width in widths:
            column.append(np.ones((1024, width)))
            store.held += 1
        column.joined(-100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak <= 5 * 64 * 1024 * 8

"""Orders of any length: each index once, at random, from anywhere, without memory."""

from __future__ import annotations

import math
import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surestep.data.permutation import KeyedOrder, KeyedPermutation
from surestep.data.samplers import LISTED_UP_TO, SeededRandomSampler

HUGE = 3 * 10**11


def permutation(size: int, *key: int) -> list[int]:
    found: list[int] = KeyedPermutation(size, *key)(np.arange(size, dtype=np.uint64)).tolist()
    return found


@pytest.mark.parametrize("size", [*range(1, 40), 63, 64, 65, 99, 100, 101, 1023, 1024, 1025, 65536, 99991])
def test_each_number_comes_once(size: int) -> None:
    assert sorted(permutation(size, 5)) == list(range(size))


@settings(max_examples=60)
@given(st.integers(1, 5000), st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=3))
def test_each_number_comes_once_under_any_key(size: int, key: list[int]) -> None:
    assert sorted(permutation(size, *key)) == list(range(size))


@pytest.mark.parametrize("size", [HUGE, 2**40, 2**40 + 1, 2**62])
def test_numbers_of_a_huge_order_differ_and_lie_inside(size: int) -> None:
    numbers = KeyedPermutation(size, 1)(np.arange(size - 10**5, size, dtype=np.uint64))
    assert len(np.unique(numbers)) == 10**5
    assert int(numbers.max()) < size
    # Even over the whole range: a sixteenth of them in each sixteenth.
    counts = np.bincount((numbers.astype(float) / size * 16).astype(int), minlength=16)
    assert unlikely(counts, 10**5 / 16, 15) > 1e-4


def unlikely(counts: np.ndarray, expected: float, freedom: int) -> float:
    """Return the chance of counts as uneven as these or more (the normal approximation of Wilson and Hilferty)."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    deviation = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return math.erfc(deviation / math.sqrt(2)) / 2


@pytest.mark.parametrize("size", [4, 5, 12, 30, 31])
def test_every_number_comes_at_every_place_equally_often(size: int) -> None:
    keys = 2000
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), permutation(size, key)] += 1
    assert unlikely(counts, keys / size, (size - 1) ** 2) > 1e-4


def test_neighbours_are_strangers() -> None:
    """What follows a number lies anywhere: no step between neighbours is more frequent than others."""
    numbers = KeyedPermutation(10**9, 7)(np.arange(2**16, dtype=np.uint64)).astype(np.int64)
    steps = np.diff(numbers) % 10**9
    assert unlikely(np.bincount(steps * 64 // 10**9, minlength=64), (2**16 - 1) / 64, 63) > 1e-4


def test_another_key_gives_another_order() -> None:
    assert len({tuple(permutation(50, *key)) for key in ((1,), (2,), (1, 0), (1, 1), (2**63,), (-1,))}) == 6


def test_orders_stay_what_they_are() -> None:
    """Runs that were saved under one version go on under the next."""
    assert permutation(10, 42) == [6, 5, 8, 0, 2, 3, 7, 9, 1, 4]
    assert KeyedOrder(HUGE, 42).between(10**9, 10**9 + 3).tolist() == [44709668422, 94735828551, 267377242831]
    assert KeyedOrder(HUGE, 42, replacement=True).between(5, 8).tolist() == [254504143669, 220557277106, 175997471576]


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize(("start", "end"), [(0, 7), (3, 25), (9, 10), (10, 30), (19, 21)])
def test_any_part_of_an_order_is_had_at_once(start: int, end: int, replacement: bool) -> None:
    order = KeyedOrder(10, 3, replacement=replacement)
    assert order.between(start, end).tolist() == order.between(0, 30).tolist()[start:end]


def test_passes_hold_each_index_once_and_differ() -> None:
    passes = KeyedOrder(10, 3).between(0, 30).reshape(3, 10).tolist()
    assert [sorted(one) for one in passes] == [list(range(10))] * 3
    assert len({tuple(one) for one in passes}) == 3


def keyed(size: int, **options: bool | int) -> SeededRandomSampler:
    sampler = SeededRandomSampler(size, seed=1, **options)  # type: ignore[arg-type]
    sampler.rule = "keyed"
    return sampler


def test_the_rule_follows_from_the_size() -> None:
    assert SeededRandomSampler(LISTED_UP_TO, 1).rule == "randperm"
    assert SeededRandomSampler(LISTED_UP_TO + 1, 1).rule == "keyed"
    assert SeededRandomSampler(10, 1, replacement=True, num_samples=LISTED_UP_TO + 1).rule == "keyed"


@pytest.mark.parametrize("options", [{}, {"num_samples": 150_000}, {"replacement": True}])
def test_seeking_is_walking(options: dict[str, int]) -> None:
    whole = list(keyed(140_000, **options))
    assert keyed(140_000, **options).order().tolist() == whole
    for start in (1, 65_535, 65_536, 65_537, len(whole) - 1, len(whole)):
        sampler = keyed(140_000, **options)
        sampler.seek(start)
        assert list(sampler) == whole[start:]


def test_epochs_differ_and_complete_passes_move_on() -> None:
    sampler = keyed(1000)
    first, second = list(sampler), list(sampler)
    assert first != second
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_an_order_of_any_length_begins_anywhere_without_memory() -> None:
    sampler = SeededRandomSampler(HUGE, seed=1)
    tracemalloc.start()
    try:
        sampler.seek(HUGE - 200_000)
        seen = list(islice(sampler, 100_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(seen)) == 100_000
    # A list of that epoch would take 2.4 TB; what is read takes about 4 MB.
    assert peak < 20 * 2**20

"""The collector against numpy and against the original's concatenation."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_pt_utils import nested_concat, nested_numpify

from surestep.errors import DataError
from surestep.metrics.collect import Collector
from surestep.metrics.spill import Store
from surestep.runtime.nested import map_structure


class Pair(NamedTuple):
    start: Any
    end: Any


def collected(batches: list[Any], **options: Any) -> Any:
    collector = Collector(**options)
    for batch in batches:
        collector.add(batch)
    return collector.result()


def original(batches: list[Any]) -> Any:
    """What the original's evaluation keeps: batches joined one by one, padded with -100."""
    whole = batches[0]
    for batch in batches[1:]:
        whole = nested_concat(whole, batch, padding_index=-100)
    return nested_numpify(whole)


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    else:
        assert type(ours) is type(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CASES = {
    "vectors": [random(4), random(4, seed=1), random(2)],
    "matrices": [random(4, 3), random(2, 3)],
    "images": [random(2, 3, 4, 4), random(1, 3, 4, 4)],
    "ragged": [random(2, 3), random(2, 5), random(1, 4)],
    "ragged deep": [random(2, 3, 2), random(2, 5, 2), random(3, 2, 2)],
    "whole numbers": [torch.ones(2, 3, dtype=torch.long), torch.ones(2, 1, dtype=torch.long)],
    "tuple": [(random(2, 3), random(2)), (random(1, 3), random(1))],
    "list": [[random(2, 3)], [random(1, 3)]],
    "mapping": [{"a": random(2, 3), "b": random(2)}, {"a": random(1, 4), "b": random(1)}],
    "nested": [(random(2), {"a": (random(2, 2),)}), (random(1), {"a": (random(1, 3),)})],
    "bfloat16": [random(2, 2).bfloat16(), random(1, 2).bfloat16()],
    "one batch": [random(3, 2)],
    "scalars": [torch.tensor(1.0), torch.tensor(2.0)],
}


@pytest.mark.parametrize("batches", CASES.values(), ids=CASES)
def test_joined_as_in_the_original(batches: list[Any]) -> None:
    theirs = original(batches) if len(batches) > 1 else nested_numpify(batches[0])

    assert_same(collected(batches), theirs)


@given(
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    rows=st.integers(1, 4),
    dtype=st.sampled_from([np.float32, np.float64, np.int64]),
)
def test_every_value_is_where_it_was_and_the_rest_is_padding(widths: list[int], rows: int, dtype: Any) -> None:
    batches = [np.arange(1, rows * width + 1, dtype=dtype).reshape(rows, width) for width in widths]
    joined = collected(batches)

    assert joined.shape == (rows * len(widths), max(widths))
    assert joined.dtype == dtype
    for number, batch in enumerate(batches):
        block = joined[number * rows : (number + 1) * rows]
        np.testing.assert_array_equal(block[:, : batch.shape[1]], batch)
        assert (block[:, batch.shape[1] :] == -100).all()


def test_types_of_containers_are_kept() -> None:
    ordered = collected([OrderedDict(b=random(1), a=random(1))] * 2)
    output = collected([SequenceClassifierOutput(logits=random(2, 3))] * 2)
    pair = collected([Pair(random(2), random(2))] * 3)

    assert type(ordered) is OrderedDict
    assert type(output) is SequenceClassifierOutput
    assert output.logits.shape == (4, 3)
    assert type(pair) is Pair
    assert pair.end.shape == (6,)


def test_nothing_collected_is_nothing() -> None:
    assert collected([]) is None
    assert collected([None, None]) is None
    assert collected([None], concatenate=False) is None


def test_batches_stay_apart_on_request() -> None:
    batches = collected([random(2, 3), random(1, 5)], concatenate=False)

    assert [batch.shape for batch in batches] == [(2, 3), (1, 5)]
    assert all(isinstance(batch, np.ndarray) for batch in batches)


def test_offloading_keeps_the_order() -> None:
    collector = Collector()
    for number in range(5):
        collector.add(torch.full((2,), float(number)))
        if number in (1, 2):
            collector.offload()
    np.testing.assert_array_equal(collector.result(), np.repeat(np.arange(5.0, dtype=np.float32), 2))


def test_nothing_is_moved_before_it_must_be() -> None:
    collector = Collector()
    # A tensor without values: moving it to the host would raise.
    collector.add(torch.zeros(2, device="meta"))

    with pytest.raises(NotImplementedError):
        collector.offload()


def test_batches_of_two_forms_are_told() -> None:
    with pytest.raises(DataError, match=r"do not have one form: dict, ndarray\..*eval_do_concat_batches=False"):
        collected([random(2), {"a": random(2)}])


def test_numbers_that_are_no_tensors_are_kept_as_arrays() -> None:
    np.testing.assert_array_equal(collected([[1.0], [2.0]])[0], np.array([1.0, 2.0]))


@pytest.mark.parametrize("batches", CASES.values(), ids=CASES)
@pytest.mark.parametrize("limit", [0, 30])
def test_on_disk_it_is_the_same(batches: list[Any], limit: int) -> None:
    with Store(limit) as store:
        collector = Collector(store=store)
        for batch in batches:
            collector.add(batch)
            if store.full:
                collector.offload()
                assert not collector._fresh
        found = collector.result()

    assert_same(map_structure(np.asarray, found), collected(batches))


def test_batches_apart_on_disk() -> None:
    with Store(0) as store:
        found = collected([(random(2, 3), random(2)), (random(1, 5), random(1))], concatenate=False, store=store)

    assert [type(one) for one in found] == [tuple, tuple]
    assert [[part.shape for part in one] for one in found] == [[(2, 3), (2,)], [(1, 5), (1,)]]
    np.testing.assert_array_equal(found[1][0], random(1, 5))


def test_samples_are_put_to_their_places() -> None:
    batches = [(torch.tensor([0.0, 1.0]), torch.ones(2, 1)), (torch.tensor([2.0]), torch.ones(1, 2))]
    collector = Collector()
    for batch in batches:
        collector.add(batch)
    first, second = collector.result(np.array([2, 0, 1]))

    assert first.tolist() == [1.0, 2.0, 0.0]
    assert second.tolist() == [[1, -100], [1, 1], [1, -100]]


def test_lists_of_samples_are_appended_where_objects_are_asked_for() -> None:
    batches = [[{"boxes": random(2, 4)}, "none"], [{"boxes": random(0, 4)}]]
    apart, whole = (collected(batches, objects=True, concatenate=how) for how in (False, True))

    assert [len(batch) for batch in apart] == [2, 1]
    assert [one if isinstance(one, str) else one["boxes"].shape for one in whole] == [(2, 4), "none", (0, 4)]
    assert isinstance(whole[0]["boxes"], np.ndarray)

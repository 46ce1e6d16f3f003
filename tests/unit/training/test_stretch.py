"""How an epoch is cut, and how far it has come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surestep.training.stretch import Grouping, Stretch


@given(batches=st.integers(1, 1000), done=st.integers(0, 1000))
def test_a_whole_epoch_has_come_as_far_as_its_batches(batches: int, done: int) -> None:
    assert Stretch(batches, done=done).reached == done / batches


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=6))
def test_an_epoch_that_is_cut_anew_never_goes_back_and_ends_at_one(cuts: list[tuple[int, int]]) -> None:
    stretch, before = Stretch(7), 0.0
    for samples, (batches, done) in enumerate(cuts):
        stretch.done = min(done, stretch.batches)
        assert 1 >= stretch.reached >= before
        before = stretch.reached
        stretch = stretch.rest(samples, batches)
        assert (stretch.start, stretch.reached) == (samples, before)
    stretch.done = stretch.batches
    assert stretch.reached == pytest.approx(1.0, abs=1e-15)
    assert stretch.complete


def test_a_rest_without_a_batch_is_complete() -> None:
    stretch = Stretch(8, done=7).rest(28, 0)

    assert stretch.complete
    assert stretch.reached == 7 / 8


def test_it_comes_back() -> None:
    stretch = Stretch(5, start=12, share=0.4, done=2)

    assert Stretch.of(stretch.state_dict()) == stretch


def test_a_grouping_is_told_by_its_arguments() -> None:
    assert str(Grouping(16, 3, 2)) == "8 samples a batch, gradient_accumulation_steps=3, 2 processes"
    assert str(Grouping(16)) == "16 samples a batch, gradient_accumulation_steps=1, 1 process"

"""The plan against counts by hand, and against what must hold of any plan."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surestep.errors import ArgumentError, DataError
from surestep.training.plan import Plan


def make(**values: Any) -> Plan:
    usual = {"batches": 10, "examples": 40, "accumulation": 1, "total_batch_size": 4, "num_train_epochs": 3.0}
    return Plan.make(**{**usual, "max_steps": -1, **values})


@pytest.mark.parametrize(
    ("given", "epochs", "steps_per_epoch", "max_steps", "samples"),
    [
        # 10 batches, one to a step.
        ({}, 3, 10, 30, 120),
        # Groups of 4, 4 and 2: three steps an epoch.
        ({"accumulation": 4, "total_batch_size": 16}, 3, 3, 9, 120),
        # A group larger than the epoch is one ragged step.
        ({"accumulation": 16, "total_batch_size": 64}, 3, 1, 3, 120),
        # Half an epoch of 3 steps is rounded up to 2 steps; the share of an epoch counts as an epoch.
        ({"accumulation": 4, "total_batch_size": 16, "num_train_epochs": 0.5}, 1, 3, 2, 20),
        ({"num_train_epochs": 2.5}, 3, 10, 25, 100),
        ({"num_train_epochs": 0.01}, 1, 10, 1, 0.4),
        # max_steps wins: 25 steps reach into the third epoch.
        ({"max_steps": 25}, 3, 10, 25, 100),
        ({"max_steps": 1, "num_train_epochs": 100}, 1, 10, 1, 4),
        ({"max_steps": 20}, 2, 10, 20, 80),
        ({"accumulation": 4, "total_batch_size": 16, "max_steps": 4}, 2, 3, 4, 64),
    ],
)
def test_the_plan_equals_the_count_by_hand(
    given: dict[str, Any], epochs: int, steps_per_epoch: int, max_steps: int, samples: float
) -> None:
    plan = make(**given)

    assert plan.epochs == epochs
    assert plan.steps_per_epoch == steps_per_epoch
    assert plan.max_steps == max_steps
    assert plan.samples == pytest.approx(samples)
    assert plan.batches_per_epoch == 10
    assert plan.examples == 40
    assert not plan.streaming


def test_a_set_that_does_not_say_how_much_it_holds_is_counted_in_whole_batches() -> None:
    plan = make(examples=None, accumulation=4, total_batch_size=16)

    assert (plan.examples, plan.samples) == (40, 120)
    assert isinstance(plan.examples, int)


@pytest.mark.parametrize(
    ("batches", "accumulation", "groups"),
    [(10, 1, [1] * 10), (10, 4, [4, 4, 2]), (12, 4, [4, 4, 4]), (3, 8, [3]), (1, 1, [1]), (9, 4, [4, 4, 1])],
)
def test_groups_of_an_epoch(batches: int, accumulation: int, groups: list[int]) -> None:
    plan = make(batches=batches, accumulation=accumulation, total_batch_size=4 * accumulation)

    assert [plan.group_size(step) for step in range(plan.steps_per_epoch)] == groups


def test_a_loader_without_samples_to_count_is_counted_in_batches() -> None:
    assert make(examples=None, accumulation=2, total_batch_size=8).examples == 40


@given(batches=st.integers(1, 400), accumulation=st.integers(1, 50))
def test_every_micro_batch_is_in_exactly_one_group(batches: int, accumulation: int) -> None:
    plan = make(batches=batches, accumulation=accumulation, total_batch_size=accumulation)
    sizes = [plan.group_size(step) for step in range(plan.steps_per_epoch)]

    assert sum(sizes) == batches
    assert all(size == accumulation for size in sizes[:-1])
    assert 1 <= sizes[-1] <= accumulation


@given(
    batches=st.integers(1, 100),
    accumulation=st.integers(1, 20),
    epochs=st.floats(0.01, 20),
    max_steps=st.one_of(st.just(-1), st.integers(1, 500)),
)
def test_the_epochs_hold_the_steps_and_no_epoch_is_idle(
    batches: int, accumulation: int, epochs: float, max_steps: int
) -> None:
    plan = make(
        batches=batches,
        accumulation=accumulation,
        total_batch_size=accumulation,
        num_train_epochs=epochs,
        max_steps=max_steps,
    )

    assert plan.max_steps >= 1
    assert plan.max_steps <= plan.epochs * plan.steps_per_epoch
    assert plan.max_steps > (plan.epochs - 1) * plan.steps_per_epoch
    if max_steps > 0:
        assert plan.max_steps == max_steps
    else:
        assert plan.max_steps == math.ceil(epochs * math.ceil(batches / accumulation))


@given(step=st.integers(0, 1000), batches=st.integers(1, 50), accumulation=st.integers(1, 8))
def test_a_step_is_located_in_its_epoch(step: int, batches: int, accumulation: int) -> None:
    plan = make(batches=batches, accumulation=accumulation, total_batch_size=accumulation)
    epoch, done = plan.locate(step)

    assert 0 <= done < plan.steps_per_epoch
    assert epoch * plan.steps_per_epoch + done == step


def test_a_stream_is_as_long_as_max_steps() -> None:
    plan = make(batches=None, examples=None, accumulation=3, total_batch_size=12, max_steps=7)

    assert plan.streaming
    assert plan.epochs == sys.maxsize
    assert (plan.steps_per_epoch, plan.max_steps, plan.batches_per_epoch) == (7, 7, 21)
    assert plan.examples == plan.samples == 84
    assert {plan.group_size(step) for step in range(7)} == {3}


@pytest.mark.parametrize("max_steps", [-1, 0])
def test_a_stream_without_an_end_is_refused(max_steps: int) -> None:
    with pytest.raises(ArgumentError, match=rf"max_steps is {max_steps}.*no length.*Set max_steps"):
        make(batches=None, examples=None, max_steps=max_steps)


def test_a_loader_without_a_batch_is_refused() -> None:
    with pytest.raises(DataError, match=r"3 samples and a batch takes 4.*dataloader_drop_last=False"):
        make(batches=0, examples=3, accumulation=2, total_batch_size=8)

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


@pytest.mark.parametrize(("max_steps", "by_steps"), [(-1, False), (0, False), (1, True), (25, True)])
def test_a_plan_goes_by_the_steps_that_were_asked_for(max_steps: int, by_steps: bool) -> None:
    assert make(max_steps=max_steps).by_steps is by_steps


def test_the_last_group_of_a_long_epoch_is_what_is_left() -> None:
    plan = make(batches=2001, accumulation=2, total_batch_size=8)

    assert [plan.group_size(step) for step in (0, 999, 1000)] == [2, 2, 1]


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


# Going on with other batches


@given(
    samples=st.integers(1, 200),
    batch=st.integers(1, 20),
    accumulation=st.integers(1, 6),
    epochs=st.floats(0.1, 5),
    data=st.data(),
)
def test_a_plan_entered_where_its_own_batches_would_stand_is_the_plan(
    samples: int, batch: int, accumulation: int, epochs: float, data: Any
) -> None:
    batches = math.ceil(samples / batch)
    plan = make(batches=batches, accumulation=accumulation, total_batch_size=accumulation, num_train_epochs=epochs)
    step = data.draw(st.integers(0, plan.max_steps))
    epoch, done = plan.locate(step)

    assert plan.stands_at(epoch, batches - done * accumulation) == step
    assert plan.entered(step, epoch, batches - done * accumulation) == plan


@given(
    samples=st.integers(1, 120),
    epochs=st.sampled_from([0.5, 1, 1.7, 3]),
    legs=st.lists(st.tuples(st.integers(1, 17), st.integers(1, 4), st.integers(1, 30)), min_size=1, max_size=5),
)
def test_legs_with_any_batches_end_with_the_last_epoch(
    samples: int, epochs: float, legs: list[tuple[int, int, int]]
) -> None:
    """Walk through legs of a batch size, an accumulation and a number of steps as a run does."""
    step, epoch, seen, plan = 0, 0, 0, None
    for number, (batch, accumulation, steps) in enumerate(legs):
        total = batch * accumulation
        own = make(
            batches=math.ceil(samples / batch),
            accumulation=accumulation,
            total_batch_size=total,
            num_train_epochs=epochs,
        )
        plan = own.entered(step, epoch, math.ceil((samples - seen) / batch))
        last = number == len(legs) - 1
        course = plan.stands_at(epoch, math.ceil((samples - seen) / batch))
        made = 0
        while step < plan.max_steps and (last or made < steps):
            assert epoch < plan.epochs
            seen, step, made = seen + total, step + 1, made + 1
            if seen >= samples:
                epoch, seen = epoch + 1, 0
        if last and made:
            # The schedule ends with the run.
            assert course + made == plan.course == own.max_steps
    if plan is not None and step == plan.max_steps and float(epochs).is_integer():
        assert (epoch, seen) == (epochs, 0)


def test_max_steps_stays_and_the_epochs_follow() -> None:
    plan = make(max_steps=25)

    # 20 steps of a half of a batch: one epoch; 5 steps are left.
    assert plan.entered(20, 1, 10).max_steps == 25
    assert plan.entered(20, 1, 10).epochs == 2
    # 4 steps of the double: 8 batches; 21 steps are left.
    assert plan.entered(4, 0, 2).epochs == 3
    assert plan.entered(4, 0, 2).samples == plan.samples


def test_what_a_plan_was_lengthened_by_is_replaced() -> None:
    plan = make()
    longer = plan.lengthened(6, 0)

    assert (longer.max_steps, longer.course, longer.samples) == (36, 30, 144)
    assert longer.lengthened(0, 0) == plan
    assert longer.entered(12, 1, 10).more_steps == 2


def test_a_stream_is_entered_anywhere() -> None:
    plan = make(batches=None, examples=None, max_steps=7)

    assert plan.entered(3, 2, 1) is plan

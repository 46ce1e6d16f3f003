"""The tally against sums taken by hand."""

from __future__ import annotations

import math

import pytest
import torch

from surestep.training.tally import Tally, mean_over_ranks

CPU = torch.device("cpu")


def filled(losses: list[float], **options: bool) -> Tally:
    tally = Tally(CPU, **options)
    for loss in losses:
        tally.add(torch.tensor(loss))
        tally.steps += 1
    return tally


def test_a_log_is_the_mean_per_step_since_the_last_one() -> None:
    tally = filled([1.0, 2.0, 6.0])

    assert tally.drain() == 3.0
    assert tally.steps == 0
    assert tally.loss.item() == 0.0
    tally.add(torch.tensor(10.0))
    tally.steps += 1
    assert tally.drain() == 10.0


def test_micro_batches_of_a_step_add_up_to_one_loss() -> None:
    tally = Tally(CPU)
    for _ in range(4):
        tally.add(torch.tensor(0.25))
    tally.steps += 1

    assert tally.drain() == 1.0


def test_the_mean_of_the_run_holds_what_was_logged_and_what_is_open() -> None:
    tally = filled([1.0, 2.0])
    tally.drain()
    tally.add(torch.tensor(9.0))
    tally.steps += 1

    assert tally.mean_loss() == 4.0


def test_a_run_without_a_step_has_a_mean_of_zero() -> None:
    assert Tally(CPU).mean_loss() == 0.0


def test_the_host_reads_nothing_while_losses_are_added() -> None:
    # A tensor without values: reading it would raise.
    tally = Tally(torch.device("meta"), hide_nonfinite=True)

    tally.add(torch.zeros((), device="meta"))


def test_nan_reaches_the_log() -> None:
    assert math.isnan(filled([1.0, math.nan]).drain())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_hidden_loss_counts_as_the_mean_of_the_others(bad: float) -> None:
    # The original adds the sum divided by one more than the steps since the last log.
    tally = filled([2.0, 4.0, bad], hide_nonfinite=True)

    assert tally.loss.item() == pytest.approx(6.0 + 6.0 / 3)
    assert filled([bad], hide_nonfinite=True).drain() == 0.0


def test_the_state_goes_through_and_the_sums_go_on() -> None:
    tally = filled([1.0, 2.0])
    tally.drain()
    tally.add(torch.tensor(5.0))
    tally.steps += 1
    tally.grad_norm, tally.learning_rate = torch.tensor(0.5), 0.25
    resumed = Tally(CPU)
    resumed.load_state_dict(tally.state_dict())

    assert (resumed.grad_norm, resumed.learning_rate) == (0.5, 0.25)
    assert resumed.state_dict() == tally.state_dict()
    assert resumed.mean_loss() == tally.mean_loss()
    assert resumed.drain() == 5.0


def test_the_mean_over_ranks_is_what_each_of_other_ranks_goes_on_with() -> None:
    tallies = [Tally(torch.device("cpu")) for _ in range(3)]
    for loss, tally in zip((1.0, 2.0, 6.0), tallies, strict=True):
        tally.add(torch.tensor(loss))
        tally.steps = 2
    tallies[1].add_parts({"head": torch.tensor(3.0)})
    state = mean_over_ranks([tally.state_dict() for tally in tallies])

    assert (state["loss"], state["parts"], state["steps"]) == (3.0, {"head": 1.0}, 2)


def with_parts(tally: Tally, *steps: dict[str, float]) -> Tally:
    for parts in steps:
        tally.add_parts({name: torch.tensor(value) for name, value in parts.items()})
        tally.steps += 1
    return tally


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_hidden_part_counts_as_the_mean_of_the_others_to_the_last_bit(bad: float) -> None:
    # Numbers that a floor, a remainder or a power would not leave alone; three steps, so that 4 is no 2 squared.
    before = [0.3, 0.45, 1.6]
    tally = with_parts(Tally(CPU, hide_nonfinite=True), *({"head": value} for value in [*before, bad]))
    total = sum(torch.tensor(value) for value in before)
    # The open group counts once the next one is there.
    assert torch.equal(tally.parts["head"], total)
    with_parts(tally, {"head": 0.0})

    assert torch.equal(tally.parts["head"], total + total / 4)


def test_a_part_that_is_first_seen_hidden_is_nothing() -> None:
    tally = with_parts(Tally(CPU, hide_nonfinite=True), {"head": math.nan}, {"head": 1.0}, {"side": math.inf})

    assert tally.drain_parts() == {"head": pytest.approx(1 / 3), "side": 0.0}
    assert math.isnan(with_parts(Tally(CPU), {"head": math.nan}, {"head": 1.0}).drain_parts()["head"])


def test_a_hidden_loss_is_the_mean_to_the_last_bit() -> None:
    before = [0.3, 0.45, 1.6]
    tally = filled([*before, math.nan], hide_nonfinite=True)
    total = sum(torch.tensor(value) for value in before)

    assert torch.equal(tally.loss, total + total / 4)


def test_parts_are_means_per_step_that_counts_by_name() -> None:
    tally = with_parts(Tally(CPU), {"b": 1.0, "a": 2.0}, {"b": 4.0}, {"a": 5.0}, {"b": 1.0, "a": 2.0}, {"b": 0.0})
    tally.left_out = 2

    assert list(tally.drain_parts().items()) == [("a", 3.0), ("b", 2.0)]
    assert tally.drain_parts() == {}


def test_where_every_step_was_left_out_there_is_no_mean() -> None:
    tally = with_parts(Tally(CPU), {"head": 0.0})
    tally.left_out = 1

    assert math.isnan(tally.drain_parts()["head"])
    assert math.isnan(tally.drain())
    assert tally.mean_loss() == 0.0


def test_a_part_is_summed_in_float32_and_leaves_the_given_tensor_alone() -> None:
    tally, given = Tally(CPU), torch.tensor(1.0, dtype=torch.bfloat16)
    for _ in range(300):
        tally.add_parts({"head": given})
        tally.steps += 1

    assert tally.drain_parts() == {"head": 1.0}
    assert given.item() == 1.0


@pytest.mark.parametrize("bad", [True, False])
def test_an_open_group_is_forgotten_with_its_parts_where_it_is_bad(bad: bool) -> None:
    tally = with_parts(filled([1.0, 2.0]), {"head": 8.0})
    tally.counted.copy_(tally.loss)
    tally.add(torch.tensor(9.0))
    tally.add_parts({"head": torch.tensor(4.0)})
    tally.drop_open_where(torch.tensor(bad))

    assert tally.loss.item() == (3.0 if bad else 12.0)
    assert tally.drain_parts() == {"head": (8.0 if bad else 12.0) / 3}


def test_an_open_group_is_forgotten_with_its_parts() -> None:
    tally = with_parts(filled([1.0, 2.0]), {"head": 8.0})
    tally.counted.copy_(tally.loss)
    tally.add(torch.tensor(9.0))
    tally.add_parts({"head": torch.tensor(4.0)})
    tally.drop_open()

    assert tally.drain_parts() == {"head": 8.0 / 3}
    assert tally.drain() == 1.0
    # What was logged does not come back.
    tally.drop_open()
    assert tally.loss.item() == 0.0


def test_sums_are_read_as_means_over_the_ranks() -> None:
    tally = Tally(CPU, mean=lambda value: value / 2)
    with_parts(tally, {"head": 6.0, "side": 2.0})
    tally.add(torch.tensor(4.0))

    assert tally.mean_loss() == 2.0
    assert tally.drain_parts() == {"head": 3.0, "side": 1.0}
    assert tally.drain() == 2.0
    assert (tally.logged_loss, tally.mean_loss()) == (2.0, 2.0)


def test_the_mean_of_the_run_leaves_steps_out_and_keeps_the_open_ones() -> None:
    tally = filled([1.0, 2.0, 0.0])
    tally.left_out = 1
    assert tally.drain() == 1.5
    assert (tally.steps, tally.left_out) == (0, 0)
    for loss in (4.0, 5.0, 6.0):
        tally.add(torch.tensor(loss))
        tally.steps += 1
    assert tally.mean_loss() == 18.0 / 5
    tally.begin_anew(steps=1)

    assert tally.steps == 1
    # Four steps are logged, and one is open.
    assert tally.mean_loss() == 18.0 / 5


def test_parts_and_left_out_steps_come_back() -> None:
    tally = with_parts(filled([1.0]), {"head": 2.0}, {"head": 4.0})
    tally.left_out = 1
    resumed = Tally(CPU)
    resumed.load_state_dict(tally.state_dict())

    assert tally.state_dict()["parts"] == {"head": 6.0}
    assert (resumed.left_out, resumed.counted.item()) == (1, 1.0)
    assert resumed.drain_parts() == tally.drain_parts() == {"head": 3.0}
    state = tally.state_dict()
    del state["parts"], state["left_out"]
    resumed.load_state_dict(state)
    assert (resumed.parts, resumed.left_out) == ({}, 0)

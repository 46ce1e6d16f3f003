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

"""What trials are compared by."""

from __future__ import annotations

import pytest
import torch
import transformers

import surestep
from surestep.errors import ArgumentError
from surestep.trainer.search.best import check_directions, check_objective

LOSS = {"eval_loss": 0.5, "epoch": 2.0, "eval_runtime": 3.0, "eval_samples_per_second": 9.0}


@pytest.mark.parametrize(
    "metrics",
    [
        LOSS,
        {**LOSS, "eval_accuracy": 0.25},
        {**LOSS, "eval_accuracy": 0.25, "eval_f1": 0.5},
        {"eval_one_loss": 1.0, "eval_two_loss": 2.0, "eval_one_runtime": 3.0},
    ],
    ids=["loss", "metric", "metrics", "sets"],
)
def test_the_objective_is_that_of_the_original(metrics: dict[str, float]) -> None:
    given = dict(metrics)

    assert surestep.default_compute_objective(metrics) == transformers.trainer_utils.default_compute_objective(metrics)
    assert metrics == given


@pytest.mark.parametrize(
    "name", ["eval_model_preparation_time", "eval_mem_cpu_alloc_delta", "init_mem_gpu", "num_input_tokens_seen"]
)
def test_figures_that_say_nothing_of_the_model_are_left_out(name: str) -> None:
    assert surestep.default_compute_objective({**LOSS, name: 7.0}) == 0.5


def test_an_evaluation_without_any_figure_is_an_error() -> None:
    with pytest.raises(
        ArgumentError, match=r"gave no figure to compare trials by, only eval_runtime. Pass compute_obj"
    ):
        surestep.default_compute_objective({"eval_runtime": 1.0})


def test_the_best_run_is_a_tuple_like_the_originals() -> None:
    values = ("3", 0.5, {"learning_rate": 0.1})

    assert surestep.BestRun(*values) == transformers.trainer_utils.BestRun(*values)
    assert surestep.BestRun._fields == transformers.trainer_utils.BestRun._fields


def test_numbers_of_any_kind_are_objectives() -> None:
    assert check_objective(torch.tensor(0.5), ["minimize"], several=False) == 0.5
    assert check_objective((1, torch.tensor(0.5)), ["minimize", "maximize"], several=True) == [1.0, 0.5]


def test_directions_are_one_or_several() -> None:
    assert check_directions("maximize") == ("maximize",)
    assert check_directions(["minimize", "maximize"]) == ("minimize", "maximize")

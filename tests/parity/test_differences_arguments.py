"""What arguments and data mean otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.trainer_pt_utils import LengthGroupedSampler

import surestep
from tests.parity.differences import shows
from tests.parity.harness import both, run
from tests.parity.models import Net, Sentences, Tagger, pad


@shows("A1")
def test_numbers_that_cannot_be_right_are_refused_where_they_are_written() -> None:
    for name, value in {
        "per_device_train_batch_size": -3,
        "gradient_accumulation_steps": 0,
        "learning_rate": -1.0,
        "weight_decay": math.nan,
        "num_train_epochs": -1.0,
    }.items():
        transformers.TrainingArguments("unused", **{name: value})
        with pytest.raises(ValueError, match=name):
            surestep.TrainingArguments("unused", **{name: value})
    assert run(transformers, {"num_train_epochs": -1.0}).losses == []


@shows("A2")
def test_older_names_are_taken() -> None:
    with pytest.raises(TypeError, match="evaluation_strategy"):
        transformers.TrainingArguments("unused", evaluation_strategy="epoch")
    with pytest.warns(FutureWarning, match="evaluation_strategy: write eval_strategy"):
        args = surestep.TrainingArguments("unused", evaluation_strategy="epoch")
    assert args.eval_strategy == "epoch"
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        with pytest.raises(FutureWarning):
            surestep.TrainingArguments("unused", evaluation_strategy="epoch")


class OfTheOriginal:
    """A subclass with the original's sampler, which draws from the global generator."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return LengthGroupedSampler(4, dataset=self.train_dataset)


@shows("A3")
def test_the_order_by_length_follows_from_seed_and_epoch() -> None:
    arguments = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "train_sampling_strategy": "group_by_length"}
    objects: dict[str, Any] = {"train": Sentences, "data_collator": pad}
    theirs, ours = both(arguments, model=lambda: Tagger(dropout=0.0), **objects)
    half = len(theirs.losses) // 2
    assert ours.losses[:half] == theirs.losses[:half]
    assert ours.losses[half:] != theirs.losses[half:]
    theirs, ours = both(arguments, model=lambda: Tagger(dropout=0.3), **objects)
    assert ours.losses != theirs.losses
    as_there = run(surestep, arguments, model=lambda: Tagger(dropout=0.3), mixin=OfTheOriginal, **objects)
    assert as_there.losses == theirs.losses


class Open(Net):
    """A forward that takes any column."""

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return super().forward(batch["x"], batch.get("labels"), batch.get("number"))


class Named:
    """A subclass that names the columns."""

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["labels"]


@shows("A4")
def test_a_forward_of_keywords_gets_every_column() -> None:
    with pytest.raises(ValueError, match="The batch received was empty"):
        run(transformers, {"max_steps": 2}, model=Open)
    ours = run(surestep, {"max_steps": 2}, model=Open)
    assert ours.losses == run(surestep, {"max_steps": 2}, model=Net).losses
    with pytest.raises(KeyError, match="x"):
        run(surestep, {"max_steps": 2}, model=Open, mixin=Named)
    assert torch.equal(ours.weights["last.bias"], run(surestep, {"max_steps": 2}).weights["last.bias"])


class Hungry(Net):
    """Runs out of memory at its third batch of more than three samples."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.large = 0

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Tensor]:
        self.large += len(x) > 3
        if self.large >= 3 and len(x) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate more than there is")
        return super().forward(x, labels, number)


@shows("A5")
def test_each_attempt_at_a_batch_size_begins_anew() -> None:
    arguments = {"per_device_train_batch_size": 4, "max_steps": 6, "learning_rate": 0.1, "optim": "sgd"}
    theirs, ours = both({**arguments, "auto_find_batch_size": True}, model=Hungry)
    plain = run(surestep, {**arguments, "per_device_train_batch_size": 3}, model=lambda: Net(0.0))
    assert theirs.state.train_batch_size == ours.state.train_batch_size == 3
    assert theirs.numbers[-18:] == ours.numbers[-18:] == plain.numbers
    assert torch.equal(ours.weights["first.weight"], plain.weights["first.weight"])
    assert not torch.allclose(theirs.weights["first.weight"], plain.weights["first.weight"], rtol=1e-3)


@shows("A6")
def test_what_is_said_to_an_optimizer_reaches_it() -> None:
    arguments = {"max_steps": 3, "learning_rate": 0.01, "optim": "adamw_torch"}
    theirs, ours = both({**arguments, "optim_args": "amsgrad=True"})
    assert not theirs.trainer.optimizer.param_groups[0]["amsgrad"]
    assert ours.trainer.optimizer.param_groups[0]["amsgrad"]
    assert "max_exp_avg_sq" in ours.optimizer["state"][0]

    run(transformers, {**arguments, "optim_args": "momentum=0.9"})
    with pytest.raises(
        ValueError, match="momentum, which the optimizer 'adamw_torch' does not take; it takes: amsgrad"
    ):
        run(surestep, {**arguments, "optim_args": "momentum=0.9"})

"""A run of 20 steps, stopped after each of them and resumed in a new trainer, ends as if it had never stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

import surestep
from surestep.training.state import ExportableState
from tests.parity.harness import Seen
from tests.parity.models import (
    CountingTagger,
    Documents,
    Net,
    Points,
    PointStream,
    Sentences,
    SizedPointStream,
    Tagger,
    pad,
)
from tests.parity.tiny import llama
from tests.resume.rig import Row, assert_goes_on, checkpoints, resumed, straight

BASE = {"per_device_train_batch_size": 4, "max_steps": 20, "logging_steps": 3, "learning_rate": 1e-2}
POINTS: dict[str, Any] = {"model": lambda: Net(0.3), "train": lambda: Points(30)}
EVALUATED = {"evaluate": lambda: Points(9, seed=1)}
TAGS: dict[str, Any] = {"model": lambda: Tagger(0.3), "train": Sentences, "data_collator": pad}


class RestlessNet(Net):
    """Draws from every generator of the process while it trains."""

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Tensor]:
        if self.training:
            x = x * (1 + 0.1 * random.random()) + 0.1 * float(np.random.randn())
        return super().forward(x, labels, number)


class GlobalDraws:
    """A subclass whose sampler draws its order from the global generator."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return WeightedRandomSampler(torch.arange(1.0, len(self.train_dataset) + 1), 24)


class OwnOptimizer:
    """A subclass with two groups and a schedule of its own."""

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            groups = [{"params": self.model.first.parameters()}, {"params": self.model.last.parameters(), "lr": 1e-3}]
            self.optimizer = torch.optim.NAdam(groups, lr=1e-2)
            self.lr_scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=3, gamma=0.7)
        return self.optimizer


class Counting(surestep.TrainerCallback, ExportableState):
    """A callback with a memory, which acts on it."""

    def __init__(self, factor: float = 0.9) -> None:
        self.factor = factor
        self.seen = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen += 1
        for parameter in kwargs["model"].parameters():
            parameter.grad.mul_(self.factor**self.seen)

    def state(self) -> dict[str, Any]:
        return {"args": {"factor": self.factor}, "attributes": {"seen": self.seen}}


class Leaving(surestep.TrainerCallback):
    """Leaves the first epoch early."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_epoch_stop = state.global_step == 5


def absolute_error(prediction: Any) -> dict[str, float]:
    return {"mae": float(np.abs(prediction.predictions - prediction.label_ids).mean())}


def tied_llama() -> torch.nn.Module:
    return llama(tie_word_embeddings=True, attention_dropout=0.3)


def restarts(seen: Seen) -> bool:
    return seen.state.global_step == 20 and seen.events.count("on_epoch_begin@0") == 1 and len(set(seen.numbers)) < 80


ROWS = [
    Row("dropout", BASE, POINTS),
    Row("accumulation with a ragged tail", {**BASE, "gradient_accumulation_steps": 3}, POINTS, restarts),
    Row("accumulation, logged at every step", {**BASE, "gradient_accumulation_steps": 3, "logging_steps": 1}, POINTS),
    Row("a short last batch dropped", {**BASE, "dataloader_drop_last": True, "gradient_accumulation_steps": 2}, POINTS),
    Row(
        "evaluation between",
        {**BASE, "gradient_accumulation_steps": 3, "eval_strategy": "steps", "eval_steps": 2},
        {**POINTS, **EVALUATED, "compute_metrics": absolute_error},
    ),
    Row(
        "reports at the end of each epoch",
        {**BASE, "gradient_accumulation_steps": 2, "logging_strategy": "epoch", "eval_strategy": "epoch"},
        {**POINTS, **EVALUATED},
    ),
    Row(
        "warm-up and cosine, clipping to little",
        {**BASE, "warmup_steps": 5, "lr_scheduler_type": "cosine", "max_grad_norm": 0.1},
        POINTS,
    ),
    Row(
        "a schedule that waits for a metric",
        {
            **BASE,
            "lr_scheduler_type": "reduce_lr_on_plateau",
            "lr_scheduler_kwargs": {"patience": 0, "threshold": 0.5},
            "eval_strategy": "steps",
            "eval_steps": 3,
            "metric_for_best_model": "loss",
        },
        {**POINTS, **EVALUATED},
        lambda seen: seen.rates[0] < 1e-2,
    ),
    Row(
        "the best so far",
        {**BASE, "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss", "learning_rate": 0.1},
        {**POINTS, **EVALUATED},
        lambda seen: seen.state.best_global_step not in (None, 20),
    ),
    Row(
        "early stopping",
        {
            **BASE,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "metric_for_best_model": "loss",
            "greater_is_better": True,
        },
        {**POINTS, **EVALUATED, "callbacks": lambda side: [side.EarlyStoppingCallback(9)]},
        lambda seen: seen.state.global_step == 10,
    ),
    Row("a callback with a memory", BASE, {**POINTS, "callbacks": lambda side: [Counting(0.8)]}),
    Row(
        "an epoch left early, with a report at its end",
        {**BASE, "eval_strategy": "epoch", "logging_strategy": "epoch"},
        {**POINTS, **EVALUATED, "callbacks": lambda side: [Leaving]},
        lambda seen: next(entry["step"] for entry in seen.logs if "loss" in entry) == 5,
    ),
    Row("float16 with its scale", {**BASE, "fp16": True, "gradient_accumulation_steps": 2}, POINTS),
    Row("bfloat16", {**BASE, "bf16": True}, POINTS),
    Row("momentum", {**BASE, "optim": "sgd", "optim_args": "momentum=0.9"}, POINTS),
    Row("weight decay and another Adam", {**BASE, "optim": "adamw_torch", "weight_decay": 0.1}, POINTS),
    Row("adagrad", {**BASE, "optim": "adagrad"}, POINTS),
    Row("adafactor", {**BASE, "optim": "adafactor"}, POINTS),
    Row("an optimizer and a schedule of the user's", BASE, {**POINTS, "mixin": OwnOptimizer}),
    Row("every generator", BASE, {**POINTS, "model": RestlessNet}),
    Row("an order drawn from the global generator", BASE, {**POINTS, "mixin": GlobalDraws}),
    Row("a seed for the data alone", {**BASE, "data_seed": 9}, POINTS),
    Row("two workers", {**BASE, "dataloader_num_workers": 2, "gradient_accumulation_steps": 2}, POINTS),
    Row(
        "by length",
        {**BASE, "train_sampling_strategy": "group_by_length", "gradient_accumulation_steps": 2},
        TAGS,
    ),
    Row("items counted over the step", {**BASE, "gradient_accumulation_steps": 3}, {**TAGS, "model": CountingTagger}),
    Row("noise on embeddings", {**BASE, "neftune_noise_alpha": 5.0}, TAGS),
    Row(
        "a language model of transformers, its weights tied",
        {**BASE, "gradient_accumulation_steps": 2},
        {"model": tied_llama, "train": Documents, "data_collator": pad},
    ),
    Row("label smoothing", {**BASE, "label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2}, TAGS),
    Row("a stream", BASE, {**POINTS, "train": PointStream}, restarts),
    Row(
        "a stream that ends in the middle of a step",
        {**BASE, "gradient_accumulation_steps": 4},
        {**POINTS, "train": lambda: PointStream(22)},
    ),
    Row("a stream with a length", {**BASE, "gradient_accumulation_steps": 4}, {**POINTS, "train": SizedPointStream}),
    Row("a stream in two workers", {**BASE, "dataloader_num_workers": 2}, {**POINTS, "train": PointStream}),
]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_resuming_after_any_step_changes_nothing(row: Row, tmp_path: Path) -> None:
    whole = straight(tmp_path / "whole", row)
    assert row.shows(whole), "the row does not show what it is there for"
    saved = checkpoints(tmp_path / "whole")
    assert len(saved) == whole.state.global_step
    # Workers take long to start; `test_matrix` breaks off more such runs, each at other steps.
    for checkpoint in saved[:-1][:: 4 if row.arguments.get("dataloader_num_workers") else 1]:
        assert_goes_on(whole, resumed(tmp_path / "resumed", row, checkpoint), checkpoint.name)


@pytest.mark.parametrize("reports", ["steps", "epoch"])
def test_resuming_after_any_epoch_changes_nothing(reports: str, tmp_path: Path) -> None:
    arguments = {
        **BASE,
        "save_strategy": "epoch",
        "logging_strategy": reports,
        "eval_strategy": reports,
        "eval_steps": 3,
    }
    row = Row("by epoch", {**arguments, "gradient_accumulation_steps": 3}, {**POINTS, **EVALUATED})
    whole = straight(tmp_path / "whole", row)
    saved = checkpoints(tmp_path / "whole")
    # Three steps an epoch; the last epoch is cut short.
    assert [path.name for path in saved] == [f"checkpoint-{step}" for step in (3, 6, 9, 12, 15, 18, 20)]
    for checkpoint in saved[:-1]:
        assert_goes_on(whole, resumed(tmp_path / "resumed", row, checkpoint), checkpoint.name)


def test_two_straight_runs_are_equal(tmp_path: Path) -> None:
    """The control: what is compared above is deterministic to begin with."""
    row = ROWS[0]
    assert_goes_on(straight(tmp_path / "one", row), straight(tmp_path / "two", row), "again")


def test_the_comparison_sees_one_changed_bit(tmp_path: Path) -> None:
    row = ROWS[0]
    whole, other = straight(tmp_path / "one", row), straight(tmp_path / "two", row)
    other.weights["last.bias"] = torch.nextafter(other.weights["last.bias"], torch.tensor(9.0))
    with pytest.raises(AssertionError, match="weights"):
        assert_goes_on(whole, other, "again")

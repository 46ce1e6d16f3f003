"""A figure that no evaluation gives is found before the first step, and the look for it leaves no trace."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.small import Line, Points, line, quick
from torch import Tensor
from torch.utils.data import IterableDataset

from surestep import EarlyStoppingCallback, Seq2SeqTrainer, Trainer, TrainerCallback, TrainingArguments
from surestep.errors import ArgumentError
from surestep.trainer.trial import first_figures

EVALUATES: dict[str, Any] = {"eval_strategy": "epoch", "eval_dataset": Points(10), "per_device_eval_batch_size": 4}


def accuracy(_: Any) -> dict[str, float]:
    return {"accuracy": 0.5}


class Steps(TrainerCallback):
    """Notes the events that it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("step")

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("prediction")


MISSING = [
    ({"metric_for_best_model": "f1"}, r"metric_for_best_model is 'f1', but no evaluation gives 'eval_f1'.*eval_acc"),
    ({"metric_for_best_model": "f1", "load_best_model_at_end": True, "save_strategy": "epoch"}, "eval_f1"),
    ({"metric_for_best_model": "f1", "save_strategy": "best"}, "eval_f1"),
    ({"metric_for_best_model": "f1", "lr_scheduler_type": "reduce_lr_on_plateau"}, "eval_f1"),
    ({"metric_for_best_model": "f1", "callbacks": [EarlyStoppingCallback()]}, "eval_f1"),
    ({"track_best": ["accuracy", "f1:max"]}, r"track_best has 'f1', but no evaluation gives 'eval_f1'"),
    (
        {"metric_for_best_model": "accuracy", "eval_dataset": {"de": Points(4), "fr": Points(4)}},
        r"no evaluation gives 'eval_accuracy'; it gives .*eval_de_accuracy.*eval_fr_accuracy",
    ),
    ({"metric_for_best_model": "loss", "eval_dataset": {"de": Points(4)}}, r"'eval_loss'; it gives .*eval_de_loss"),
    ({"metric_for_best_model": "f1", "prediction_loss_only": True}, r"not called, for prediction_loss_only=True"),
    ({"metric_for_best_model": "f1", "label_names": ["target"]}, r"not called: .*\(label_names: target\)"),
    (
        {
            "metric_for_best_model": "f1",
            "batch_eval_metrics": True,
            "compute_metrics": lambda prediction, compute_result: {"accuracy": 1.0},
        },
        "eval_f1",
    ),
    ({"metric_for_best_model": "f1", "kind": Seq2SeqTrainer}, "eval_f1"),
]


@pytest.mark.parametrize(("settings", "message"), MISSING)
def test_a_figure_that_nothing_gives_is_found_before_the_first_step(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    steps = Steps()
    settings = {"compute_metrics": accuracy, **EVALUATES, **settings}
    kind = settings.pop("kind", Trainer)
    if kind is Seq2SeqTrainer:
        from surestep import Seq2SeqTrainingArguments

        trainer = kind(
            line(),
            Seq2SeqTrainingArguments(
                str(tmp_path), eval_strategy="epoch", metric_for_best_model="f1", report_to="none", use_cpu=True
            ),
            train_dataset=Points(),
            eval_dataset=Points(4),
            compute_metrics=accuracy,
            callbacks=[steps],
        )
    else:
        trainer = quick(tmp_path, kind, **settings)
        trainer.add_callback(steps)
    with pytest.raises(ArgumentError, match=message):
        trainer.train()
    assert steps.heard == []


class Called:
    """A metric function that counts its calls, and the samples of each."""

    def __init__(self, name: str = "f1") -> None:
        self.sizes: list[int] = []
        self.name = name

    def __call__(self, prediction: Any) -> dict[str, float]:
        self.sizes.append(len(prediction.predictions))
        return {self.name: 1.0}


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"metric_for_best_model": "f1"}, [4, 10]),
        ({"track_best": ["f1"]}, [4, 10]),
        ({"metric_for_best_model": "loss", "load_best_model_at_end": True, "save_strategy": "epoch"}, [10]),
        ({}, [10]),
        ({"metric_for_best_model": "f1", "eval_strategy": "no"}, []),
    ],
)
def test_only_what_something_depends_on_is_tried(tmp_path: Path, settings: dict[str, Any], sizes: list[int]) -> None:
    called = Called()
    quick(tmp_path, **{**EVALUATES, "compute_metrics": called, **settings}).train()
    assert called.sizes == sizes


class Draws(Line):
    """Draws from every generator, and notes the mode, whenever it is run."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        noise = torch.rand(1) + random.random() + float(np.random.default_rng(np.random.randint(100)).random())
        return super().forward(x + 0.01 * noise, labels)


def drawing() -> Line:
    torch.manual_seed(0)
    return Draws()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_look_leaves_no_trace(tmp_path: Path, workers: int) -> None:
    settings: dict[str, Any] = {
        **EVALUATES,
        "compute_metrics": Called("f1"),
        "logging_steps": 1,
        "save_strategy": "epoch",
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
    }
    heard, runs = [], []
    for name in ("f1", None):
        steps = Steps()
        trainer = quick(
            tmp_path / str(name), model=drawing(), callbacks=[steps], metric_for_best_model=name, **settings
        )
        own = trainer.callback_handler
        trainer.train()
        assert trainer.callback_handler is own
        assert trainer.compute_metrics is settings["compute_metrics"]
        heard.append(steps.heard)
        runs.append(trainer)
    asked, plain = runs
    losses = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in runs]

    assert losses[0] == losses[1]
    assert torch.equal(asked.model.layer.weight, plain.model.layer.weight)
    assert heard[0] == heard[1]


def test_modes_are_as_they_were_when_a_figure_is_missing(tmp_path: Path) -> None:
    model = line()
    model.extra = torch.nn.Dropout().eval()
    before = [module.training for module in model.modules()]
    trainer = quick(tmp_path, model=model, **EVALUATES, compute_metrics=accuracy, metric_for_best_model="f1")
    with pytest.raises(ArgumentError, match="eval_f1"):
        trainer.train()
    assert [module.training for module in model.modules()] == before == [True, True, False]


def test_a_function_that_fails_on_one_batch_is_no_mistake(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def needs_all(prediction: Any) -> dict[str, float]:
        if len(prediction.predictions) < 10:
            raise ValueError("only one class")
        return {"auroc": 0.7}

    trainer = quick(tmp_path, **EVALUATES, compute_metrics=needs_all, metric_for_best_model="auroc")
    with caplog.at_level(logging.WARNING, logger="surestep"):
        trainer.train()
    assert trainer.state.best_metric == 0.7
    assert "compute_metrics fails on the first evaluation batch (ValueError: only one class)" in caplog.text


class Evaluates(Trainer):
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        return {**super().evaluate(*args, **kwargs), "eval_f1": 0.3}


class Loops(Trainer):
    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        output.metrics["eval_f1"] = 0.3
        return output


class Adds(TrainerCallback):
    def on_evaluate(self, *args: Any, metrics: Any, **kwargs: Any) -> None:
        metrics["eval_f1"] = 0.3


class Once(IterableDataset):
    """A stream whose samples can be had once."""

    def __init__(self) -> None:
        self.samples = iter([Points(6)[index] for index in range(6)])

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.samples)


@pytest.mark.parametrize(
    ("settings", "sizes"), [({"kind": Evaluates}, [10]), ({"kind": Loops}, [10]), ({"callbacks": [Adds()]}, [4, 10])]
)
def test_who_adds_figures_of_their_own_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], sizes: list[int]
) -> None:
    called = Called("accuracy")
    trainer = quick(tmp_path, **EVALUATES, **settings, compute_metrics=called, metric_for_best_model="f1")
    with caplog.at_level(logging.WARNING, logger="surestep"):
        trainer.train()
    assert trainer.state.best_metric == 0.3
    assert called.sizes == sizes
    assert ("Unless Adds adds it in on_evaluate, the first evaluation will lack it" in caplog.text) == (len(sizes) == 2)


def test_a_stream_that_can_be_read_once_is_not_begun(tmp_path: Path) -> None:
    called = Called()
    settings = {**EVALUATES, "eval_dataset": Once()}
    quick(tmp_path, **settings, compute_metrics=called, metric_for_best_model="f1").train()
    assert called.sizes == [6]


def test_a_batch_that_cannot_be_evaluated_is_told_before_the_first_step(tmp_path: Path) -> None:
    class Narrow(Points):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"x": torch.ones(2), "labels": torch.ones(1)}

    steps = Steps()
    settings = {**EVALUATES, "eval_dataset": Narrow(4)}
    trainer = quick(tmp_path, **settings, compute_metrics=Called(), metric_for_best_model="f1", callbacks=[steps])
    with pytest.raises(RuntimeError, match="cannot be multiplied") as failure:
        trainer.train()
    assert "step" not in steps.heard
    assert "A layer takes 3 features and is given 2" in "".join(failure.value.__notes__)


def test_a_trainer_that_generates_settles_its_lengths_before(tmp_path: Path) -> None:
    from surestep import Seq2SeqTrainingArguments

    arguments = Seq2SeqTrainingArguments(str(tmp_path), report_to="none", use_cpu=True, generation_max_length=7)
    trainer = Seq2SeqTrainer(line(), arguments, train_dataset=Points(4), eval_dataset=Points(4))
    first_figures(trainer)
    assert trainer._gen_kwargs["max_length"] == 7


def test_metrics_by_name_are_tried_too(tmp_path: Path) -> None:
    def trainer(**settings: Any) -> Trainer:
        arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, eval_strategy="epoch", **settings)
        return Trainer(line(), arguments, train_dataset=Points(8), eval_dataset=Points(4), metrics=["mse"])

    with pytest.raises(ArgumentError, match=r"no evaluation gives 'eval_mae'; it gives eval_loss, eval_mse"):
        trainer(metric_for_best_model="mae").train()
    known = trainer(metric_for_best_model="mse", max_steps=1)
    known.train()
    assert known.state.best_metric is not None
    assert known.args.greater_is_better is False

"""Mistakes between arguments and objects: each is found at construction, and each message says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Line, Points, arguments, line, quick
from torch import nn
from torch.utils.data import IterableDataset

from surestep import Trainer
from surestep.errors import ArgumentError, ModelError
from surestep.trainer.checks import check_trainable


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        yield from ()


def sgd() -> Any:
    return torch.optim.SGD(line().parameters(), lr=0.1)


def schedule() -> Any:
    return torch.optim.lr_scheduler.ConstantLR(sgd())


EVALUATES = {"eval_strategy": "epoch", "eval_dataset": Points(4)}
BEST = {"metric_for_best_model": "loss", "save_strategy": "best"}

MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("no model", {"model": None}, r"needs a model: pass model, or model_init, a function that makes one"),
    ("two models", {"model": line(), "model_init": line}, r"both model and model_init\. Pass one of them"),
    ("a class", {"model": Line}, r"model is the class Line\. Pass an instance: Line\(\.\.\.\)"),
    ("no parameters", {"model": object()}, r"model is a object, which has no parameters\. Pass a torch\.nn\.Module"),
    (
        "a schedule alone",
        {"optimizers": (None, schedule())},
        r"a schedule and no optimizer\. Pass the optimizer that the schedule was made for",
    ),
    (
        "an optimizer alone",
        {"optimizers": sgd()},
        r"optimizers is of type SGD\. Pass a pair: optimizers=\(optimizer, schedule\)",
    ),
    ("three of them", {"optimizers": (sgd(), None, None)}, r"optimizers is of type tuple\. Pass a pair"),
    (
        "two optimizers",
        {"optimizers": (sgd(), None), "optimizer_cls_and_kwargs": (torch.optim.SGD, {})},
        r"both optimizers and optimizer_cls_and_kwargs\. Pass one of them",
    ),
    (
        "an optimizer of another model",
        {"model_init": line, "optimizers": (sgd(), None)},
        r"model_init makes a new model for each run.*Pass optimizer_cls_and_kwargs, or override create_optimizer",
    ),
    (
        "a schedule of another model",
        {"model_init": line, "optimizers": (None, schedule())},
        r"model_init makes a new model for each run",
    ),
    (
        "rules for an optimizer that is made",
        {"optimizers": (sgd(), None), "parameter_rules": [{"pattern": "bias", "freeze": True}]},
        r"parameter_rules has no effect on an optimizer in optimizers",
    ),
    (
        "nothing to evaluate on",
        {"eval_strategy": "steps", "eval_steps": 5},
        r"eval_strategy is 'steps', but eval_dataset is None\. Pass an eval_dataset, or set eval_strategy='no'",
    ),
    (
        "a metric of whole sets for batches",
        {"batch_eval_metrics": True, "compute_metrics": lambda prediction: {}},
        r"batch_eval_metrics is True.*Add the argument compute_result",
    ),
    (
        "a metric that nobody computes",
        {**EVALUATES, **BEST, "metric_for_best_model": "f1"},
        r"metric_for_best_model is 'f1', but there is no compute_metrics.*set metric_for_best_model='loss'",
    ),
    (
        "a stream without an end",
        {"train_dataset": Stream()},
        r"train_dataset has no length and max_steps is -1.*Set max_steps",
    ),
    (
        "a collator that cannot be called",
        {"data_collator": [1, 2]},
        r"data_collator is a list, which cannot be called\. Pass a function of a list of samples",
    ),
]


@pytest.mark.parametrize(("settings", "message"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_found_at_construction(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        quick(tmp_path, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval_strategy": "no"}, r"The best model is asked for, but eval_strategy is 'no'.*Set eval_strategy"),
        ({"metric_for_best_model": None}, r"metric_for_best_model is None\. Name the metric that decides"),
    ],
)
def test_arguments_that_were_changed_after_they_were_checked(tmp_path: Path, change: Any, message: str) -> None:
    args = arguments(tmp_path, eval_strategy="epoch", **BEST)
    for name, value in change.items():
        setattr(args, name, value)

    with pytest.raises(ArgumentError, match=message):
        Trainer(line(), args, train_dataset=Points(), eval_dataset=Points(4))


class OwnEvaluation(Trainer):
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        return {"eval_f1": 1.0}


class OwnLoop(Trainer):
    def evaluation_loop(self, *_: Any, **__: Any) -> Any:
        return None


RIGHT: list[tuple[str, type[Trainer], dict[str, Any]]] = [
    ("a stream with an end", Trainer, {"train_dataset": Stream(), "max_steps": 3}),
    ("a metric of batches", Trainer, {"batch_eval_metrics": True, "compute_metrics": lambda p, compute_result: {}}),
    ("an open-ended metric", Trainer, {"batch_eval_metrics": True, "compute_metrics": lambda p, **_: {}}),
    ("the loss decides", Trainer, {**EVALUATES, **BEST}),
    ("the loss of one set decides", Trainer, {**EVALUATES, **BEST, "metric_for_best_model": "eval_test_loss"}),
    ("the speed decides", Trainer, {**EVALUATES, **BEST, "metric_for_best_model": "eval_samples_per_second"}),
    ("a metric is computed", Trainer, {**EVALUATES, **BEST, "metric_for_best_model": "f1", "compute_metrics": dict}),
    ("evaluation overridden", OwnEvaluation, {**EVALUATES, **BEST, "metric_for_best_model": "f1"}),
    ("its loop overridden", OwnLoop, {**EVALUATES, **BEST, "metric_for_best_model": "f1"}),
    ("no training set", Trainer, {"train_dataset": None}),
    ("an optimizer class", Trainer, {"model_init": Line, "optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.1})}),
]


@pytest.mark.parametrize(("kind", "settings"), [row[1:] for row in RIGHT], ids=[row[0] for row in RIGHT])
def test_what_is_right_passes(tmp_path: Path, kind: type[Trainer], settings: dict[str, Any]) -> None:
    quick(tmp_path, kind, **settings)


def test_a_metric_as_a_method_counts(tmp_path: Path) -> None:
    class Own(Trainer):
        def compute_metrics(self, prediction: Any) -> dict[str, float]:
            return {"f1": 1.0}

    quick(tmp_path, Own, **EVALUATES, **{**BEST, "metric_for_best_model": "f1"})


def test_a_frozen_model_is_refused_when_training_begins(tmp_path: Path) -> None:
    model = line().requires_grad_(False)
    with pytest.raises(ModelError, match=r"Every parameter of Line is frozen.*Unfreeze some, or add an adapter"):
        check_trainable(model)

    trainer = quick(tmp_path, model=model, eval_dataset=Points(4))
    assert trainer.evaluate()["eval_loss"] > 0
    with pytest.raises(ModelError, match="frozen"):
        trainer.train()


def test_training_without_a_set_is_told(tmp_path: Path) -> None:
    trainer = Trainer(nn.Linear(1, 1), arguments(tmp_path))
    with pytest.raises(ArgumentError, match=r"Training needs train_dataset, which is None\. Pass one to Trainer"):
        trainer.train()


def test_evaluating_without_a_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"Evaluation needs eval_dataset, which is None"):
        quick(tmp_path).evaluate()


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ArgumentError, match=r"output_dir='.*taken' is a file\. Write a folder"):
        quick(tmp_path / "taken")
    with pytest.raises(ArgumentError, match=r"output_dir='.*taken/below' cannot be made \(.*Write a folder"):
        quick(tmp_path / "taken" / "below")

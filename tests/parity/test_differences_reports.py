"""What logs and evaluations say otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers

import surestep
from tests.parity.differences import shows
from tests.parity.harness import both, run
from tests.parity.models import Net, Points, Sentences, Tagger, pad

POINTS = {"evaluate": lambda: Points(20, seed=1)}
SIDES = [transformers, surestep]


class SometimesNan(Net):
    """A loss that is NaN for the batch that holds sample 7."""

    def forward(self, x: Any, labels: Any = None, number: Any = None) -> dict[str, Any]:
        outputs = super().forward(x, labels, number)
        if (number == 7).any():
            outputs["loss"] = outputs["loss"] + torch.nan if not self.training else torch.full((), torch.nan) * 0
            outputs["loss"] = outputs["loss"] + 0 * outputs["logits"].sum()
        return outputs


@shows("L1")
def test_a_loss_that_is_not_finite_is_logged_as_it_is() -> None:
    arguments = {
        "per_device_train_batch_size": 5,
        "max_steps": 2,
        "logging_steps": 2,
        "train_sampling_strategy": "sequential",
    }
    theirs = run(transformers, arguments, model=SometimesNan)
    ignoring = {**arguments, "nonfinite": "ignore"}
    ours = run(surestep, ignoring, model=SometimesNan)
    assert math.isnan(theirs.losses[1])
    assert math.isnan(ours.losses[1])
    assert math.isfinite(theirs.logs[0]["loss"])
    assert math.isnan(ours.logs[0]["loss"])
    asked = run(surestep, {**ignoring, "logging_nan_inf_filter": True}, model=SometimesNan)
    assert asked.logs[0]["loss"] == theirs.logs[0]["loss"]
    not_asked = run(surestep, {**ignoring, "logging_nan_inf_filter": False}, model=SometimesNan)
    assert math.isnan(not_asked.logs[0]["loss"])


@shows("L2")
def test_an_evaluation_with_a_loss_that_is_not_finite_is_not_finite() -> None:
    options: dict[str, Any] = {
        **POINTS,
        "model": SometimesNan,
        "drive": lambda trainer: trainer.evaluate()["eval_loss"],
    }
    theirs, ours = both({}, **options)
    assert math.isfinite(theirs.output)
    assert math.isnan(ours.output)
    asked = run(surestep, {"logging_nan_inf_filter": True}, **options)
    assert asked.output == pytest.approx(theirs.output, rel=1e-6)


def losses_by_batch_size(side: Any, options: dict[str, Any], name: str = "eval_loss") -> list[float]:
    return [
        run(side, {"per_device_eval_batch_size": size, **options["arguments"]}, **options["objects"]).output[name]
        for size in (1, 4, 16)
    ]


@shows("L3")
def test_the_evaluation_loss_does_not_depend_on_the_batch_size() -> None:
    objects = {"model": Tagger, "evaluate": lambda: Sentences(22), "data_collator": pad}
    objects["drive"] = lambda trainer: trainer.evaluate()
    options = {"arguments": {}, "objects": objects}
    theirs, ours = (losses_by_batch_size(side, options) for side in SIDES)
    assert max(theirs) - min(theirs) > 1e-3
    assert ours == pytest.approx([ours[0]] * 3, rel=1e-6)

    by_samples = {**objects, "compute_metrics": lambda prediction: {"by_samples": float(prediction.losses.mean())}}
    as_there = {"arguments": {"include_for_metrics": ["loss"]}, "objects": by_samples}
    assert losses_by_batch_size(surestep, as_there, "eval_by_samples") == pytest.approx(theirs, rel=1e-6)

    torch.manual_seed(3)
    model = Tagger().eval()
    whole = pad([Sentences(22)[number] for number in range(22)])
    by_hand = torch.nn.functional.cross_entropy(
        model(whole["input_ids"])["logits"].flatten(0, 1), whole["labels"].flatten()
    )
    assert ours[0] == pytest.approx(by_hand.item(), rel=1e-6)


@shows("L4")
def test_the_printer_takes_nothing_away() -> None:
    theirs, ours = both({"max_steps": 1})
    assert "total_flos" not in theirs.output.metrics
    assert ours.output.metrics["total_flos"] == 0


class Renamed(Points):
    """Points whose labels have a name that no model takes."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        sample["target"] = sample.pop("labels")
        return sample


@shows("L5")
def test_an_evaluation_without_labels_is_refused() -> None:
    options: dict[str, Any] = {"evaluate": Renamed, "drive": lambda trainer: trainer.evaluate()}
    theirs = run(transformers, {}, **options)
    assert "eval_loss" not in theirs.output
    with pytest.raises(ValueError, match="no labels are left"):
        run(surestep, {}, **options)
    predictions = run(surestep, {}, evaluate=Renamed, drive=lambda trainer: trainer.predict(Renamed())).output
    assert predictions.label_ids is None


@shows("L6")
@pytest.mark.parametrize("compute_metrics", [None, lambda prediction: {"accuracy": 1.0}], ids=["none", "another"])
def test_a_metric_that_nothing_gives_is_found_early(tmp_path: Path, compute_metrics: Any) -> None:
    steps: list[int] = []
    settings = {"eval_steps": 1, "max_steps": 2, "metric_for_best_model": "f1", "save_strategy": "best"}

    def train(side: Any, *mixins: type) -> None:
        kind = type("Trains", (*mixins, side.Trainer), {})
        arguments = side.TrainingArguments(
            str(tmp_path), eval_strategy="steps", report_to="none", use_cpu=True, disable_tqdm=True, **settings
        )
        kind(
            Net(),
            arguments,
            train_dataset=Points(),
            eval_dataset=Points(20, seed=1),
            compute_metrics=compute_metrics,
            callbacks=[_noting(side, steps)],
        ).train()

    with pytest.raises(KeyError, match="eval_f1"):
        train(transformers)
    assert steps == [1]
    with pytest.raises(ValueError, match="metric_for_best_model is 'f1'"):
        train(surestep)
    assert steps == [1], "only the original took a step first"
    # What an overridden `evaluate` may give is looked for in the first evaluation.
    with pytest.raises(ValueError, match="no evaluation gives 'eval_f1'"):
        train(surestep, _Evaluates)
    assert steps == [1, 1]


class _Evaluates:
    """An `evaluate` that may add figures of its own."""

    def evaluate(self, *args: Any, **given: Any) -> dict[str, float]:
        figures: dict[str, float] = super().evaluate(*args, **given)  # type: ignore[misc]
        return figures


def _noting(side: Any, steps: list[int]) -> Any:
    class Notes(side.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            steps.append(state.global_step)

    return Notes()


@shows("L7")
def test_early_stopping_that_compares_nothing_is_refused() -> None:
    for side, kind in ((transformers, AssertionError), (surestep, ValueError)):
        with pytest.raises(kind, match="metric_for_best_model"):
            run(side, {"max_steps": 1}, callbacks=lambda side: [side.EarlyStoppingCallback(1)])


@shows("L8")
@pytest.mark.parametrize("metric", ["perplexity", "wer", "mae"])
def test_an_error_is_better_when_it_falls(metric: str) -> None:
    arguments = {
        "max_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "best",
        "learning_rate": 0.05,
    }
    figures = {**POINTS, "compute_metrics": lambda p: {metric: float(np.abs(p.predictions - p.label_ids).mean())}}
    theirs, ours = both({**arguments, "metric_for_best_model": metric}, **figures)
    seen = [entry[f"eval_{metric}"] for entry in ours.logs if f"eval_{metric}" in entry]
    assert theirs.state.best_metric == max(seen)
    assert ours.state.best_metric == min(seen)
    told = run(surestep, {**arguments, "metric_for_best_model": metric, "greater_is_better": True}, **figures)
    assert told.state.best_metric == theirs.state.best_metric


@shows("L9")
@pytest.mark.parametrize("saving", [{"save_strategy": "steps", "save_steps": 5}, {"save_strategy": "epoch"}])
def test_saving_and_evaluation_need_not_share_their_steps(saving: dict[str, Any]) -> None:
    arguments = {
        "per_device_train_batch_size": 4,
        "max_steps": 8,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": True,
    }
    with pytest.raises(ValueError, match="load_best_model_at_end requires"):
        run(transformers, {**arguments, **saving}, **POINTS)
    ours = run(surestep, {**arguments, **saving}, **POINTS)
    assert ours.state.best_global_step == 3
    assert "checkpoint-3" in ours.files
    assert "checkpoint-6" not in ours.files


class Flat(Points):
    """Labels of shape (batch,) beside predictions of shape (batch, 1)."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "labels": sample["labels"].flatten()[0]}


@shows("L10")
@pytest.mark.filterwarnings("default:Using a target size")
def test_labels_spread_over_predictions_are_refused() -> None:
    with pytest.warns(UserWarning, match="Using a target size"):
        theirs = run(transformers, {"max_steps": 1}, train=Flat)
    with pytest.raises(ValueError, match=r"compared with labels of shape"):
        run(surestep, {"max_steps": 1}, train=Flat)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using a target size")
        asked = run(surestep, {"max_steps": 1}, train=Flat)
    assert asked.losses == theirs.losses
    fitting = run(surestep, {"max_steps": 1})
    assert fitting.losses != theirs.losses


@shows("L11")
def test_a_label_that_is_no_class_is_found_before_training() -> None:
    rows = {"input_ids": [[1, 2]] * 9, "labels": [0, 1, 2] * 2 + [0, 1, 7]}
    found: dict[str, list[int]] = {}
    for side in SIDES:
        steps: list[int] = []
        with pytest.raises((IndexError, ValueError)) as failure:
            run(
                side,
                {"per_device_train_batch_size": 3, "train_sampling_strategy": "sequential"},
                model=_three_classes,
                train=lambda: datasets.Dataset.from_dict(rows),
                callbacks=lambda side, steps=steps: [_noting(side, steps)],
            )
        found[f"{failure.type.__name__} {failure.value}"[:21]] = steps
    assert found == {"IndexError Target 7 is"[:21]: [1, 2], "DataError train_dataset"[:21]: []}


def _three_classes() -> Any:
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(**sizes, intermediate_size=8, num_labels=3)
    )

"""`evaluate` and `predict`: figures, arrays and what metric functions are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.harness import Case, as_parameters, check
from tests.parity.models import EvenSentences, Net, Points, PointStream, Sentences, Tagger, TupleNet, pad

BASE = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 6, "max_steps": 3}
POINTS = {"evaluate": lambda: Points(20, seed=1)}
TAGS = {"model": Tagger, "train": Sentences, "evaluate": lambda: EvenSentences(20, seed=9), "data_collator": pad}


class PointNet(Net):
    """The usual, naming its main input."""

    main_input_name = "x"


class RichNet(Net):
    """Several outputs, nested, one of which is to be ignored."""

    config = SimpleNamespace(keys_to_ignore_at_inference=["secret"], use_cache=False)

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Any]:
        outputs = super().forward(x, labels, number)
        logits = outputs["logits"]
        return {**outputs, "secret": logits * 2, "pair": (logits + 1, {"twice": logits * 2})}


def see(prediction: Any) -> dict[str, Any]:
    """A metric that shows everything it was given."""
    parts = {"predictions": prediction.predictions, "labels": prediction.label_ids}
    parts |= {"inputs": prediction.inputs, "losses": prediction.losses}
    figures: dict[str, Any] = {"parts": len(list(prediction))}
    for name, part in parts.items():
        arrays = part if isinstance(part, list | tuple) else [part]
        figures[f"{name}_shapes"] = [list(array.shape) for array in arrays if isinstance(array, np.ndarray)]
        figures[f"{name}_sum"] = float(sum(np.sum(array, dtype=float) for array in arrays if hasattr(array, "shape")))
    return figures


class Running:
    """A metric over batches, which shows when it is asked for its result."""

    def __init__(self) -> None:
        self.calls: list[bool] = []
        self.total = 0.0

    def __call__(self, prediction: Any, compute_result: bool) -> dict[str, float]:
        self.calls.append(compute_result)
        self.total += float(torch.as_tensor(prediction.predictions).abs().sum() + prediction.losses.sum())
        self.total += float(prediction.inputs["x"].sum())
        return {"total": self.total, "batches": len(self.calls)} if compute_result else {}


def halve(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=-1) if logits.dim() == 3 else logits) // 2


def evaluate_alone(trainer: Any) -> Any:
    return trainer.evaluate()


def predict_alone(trainer: Any) -> Any:
    return trainer.predict(trainer.eval_dataset)


def everything(trainer: Any) -> list[Any]:
    before = [trainer.evaluate(), trainer.predict(trainer.eval_dataset, metric_key_prefix="before")]
    return [
        *before,
        trainer.train(),
        trainer.evaluate(metric_key_prefix="after"),
        trainer.predict(trainer.eval_dataset),
    ]


def other_set(trainer: Any) -> Any:
    return trainer.evaluate(Points(13, seed=8), metric_key_prefix="other")


def named_sets(trainer: Any) -> list[Any]:
    return [trainer.evaluate(), trainer.evaluate("far"), trainer.evaluate({"new": Points(5)})]


def unlabelled(trainer: Any) -> Any:
    return trainer.predict([{"x": sample["x"]} for sample in (trainer.eval_dataset[index] for index in range(20))])


def always(seen: Any) -> bool:
    return seen.output is not None


ALONE = {"drive": evaluate_alone}
PREDICT = {"drive": predict_alone}

CASES = [
    Case("evaluate without training", BASE, {**POINTS, **ALONE}, always),
    Case("evaluate without training, with a metric", BASE, {**POINTS, **ALONE, "compute_metrics": see}, always),
    Case("predict without training", BASE, {**POINTS, **PREDICT}, lambda s: s.output.predictions.shape == (20, 1)),
    Case("evaluate, predict, train, and again", BASE, {**POINTS, "drive": everything, "compute_metrics": see}, always),
    Case("another set under another prefix", BASE, {**POINTS, "drive": other_set}, always),
    Case(
        "named sets",
        BASE,
        {"evaluate": lambda: {"near": Points(9, seed=1), "far": Points(7, seed=2)}, "drive": named_sets},
        always,
    ),
    Case("predict without labels", BASE, {**POINTS, "drive": unlabelled}, lambda s: s.output.label_ids is None),
    Case("predict a stream", BASE, {"evaluate": PointStream, **PREDICT}, lambda s: len(s.output.predictions) == 24),
    Case("evaluate a stream", BASE, {"evaluate": PointStream, **ALONE}, always),
    Case("outputs in a tuple", BASE, {**POINTS, **PREDICT, "model": TupleNet}, always),
    Case("nested outputs, some ignored", BASE, {**POINTS, **PREDICT, "model": RichNet}, always),
    Case(
        "nested outputs, some ignored by the caller",
        BASE,
        {**POINTS, "model": RichNet, "drive": lambda trainer: trainer.predict(trainer.eval_dataset, ["pair"])},
        always,
    ),
    Case(
        "a second dimension that differs from batch to batch",
        BASE,
        {**TAGS, **PREDICT},
        lambda seen: (seen.output.predictions == -100).any() and seen.output.predictions.ndim == 3,
    ),
    Case("a ragged metric", BASE, {**TAGS, **PREDICT, "compute_metrics": see}, always),
    Case(
        "batches left apart",
        {**BASE, "eval_do_concat_batches": False},
        {**TAGS, **PREDICT, "compute_metrics": see},
        lambda seen: isinstance(seen.output.predictions, list),
    ),
    Case("moved to the host every other batch", {**BASE, "eval_accumulation_steps": 2}, {**TAGS, **PREDICT}, always),
    Case(
        "loss only, with a metric function",
        {**BASE, "prediction_loss_only": True, "eval_strategy": "steps", "eval_steps": 2},
        {**POINTS, "compute_metrics": see},
    ),
    Case(
        "inputs and losses for the metric",
        {**BASE, "include_for_metrics": ["inputs", "loss"], "remove_unused_columns": False},
        {**TAGS, **PREDICT, "compute_metrics": see},
        lambda seen: seen.output.metrics["test_parts"] == 4,
    ),
    Case(
        "logits made smaller first",
        BASE,
        {**TAGS, **PREDICT, "preprocess_logits_for_metrics": halve, "compute_metrics": see},
        lambda seen: seen.output.predictions.ndim == 2,
    ),
    Case("dropping the last batch", {**BASE, "dataloader_drop_last": True}, {**POINTS, **PREDICT}, always),
    Case("half precision for the whole evaluation", {**BASE, "bf16_full_eval": True}, {**TAGS, **PREDICT}, always),
    Case("batches of one", {**BASE, "per_device_eval_batch_size": 1}, {**POINTS, **PREDICT}, always),
]

METRICS_BY_BATCH = {
    "evaluate": evaluate_alone,
    "predict": predict_alone,
    "in training": lambda trainer: trainer.train(),
}


@as_parameters(CASES)
def test_evaluation_equals_the_originals(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("name", METRICS_BY_BATCH)
def test_metrics_by_batch_equal_the_originals(name: str) -> None:
    made: list[Running] = []

    class OwnMetric:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(Running())
            super().__init__(*args, compute_metrics=made[-1], **kwargs)

    arguments = {**BASE, "batch_eval_metrics": True, "eval_strategy": "steps", "eval_steps": 3}
    arguments["include_for_metrics"] = ["inputs", "loss"]
    check(
        Case(
            name, arguments, {**POINTS, "model": PointNet, "mixin": OwnMetric, "drive": METRICS_BY_BATCH[name]}, always
        )
    )
    assert made[0].calls == made[1].calls == [False, False, False, True]

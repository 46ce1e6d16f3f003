"""Evaluation and prediction: names, sets, what is best."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
import transformers
from tests.small import Line, Points, arguments, line, quick
from torch import Tensor, nn

from surestep import Trainer
from surestep.errors import ArgumentError
from surestep.logs import warn_once

# Sets


def test_each_set_is_evaluated_under_its_name(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset={"easy": Points(4), "hard": Points(6, seed=9)})
    metrics = trainer.evaluate()

    assert {"eval_easy_loss", "eval_hard_loss", "eval_hard_runtime"} <= metrics.keys()
    assert [name for entry in trainer.state.log_history for name in entry if name.endswith("_loss")] == [
        "eval_easy_loss", "eval_hard_loss",
    ]  # fmt: skip
    assert trainer.evaluate("hard").keys() >= {"eval_loss"}
    assert trainer.evaluate("hard")["eval_loss"] == pytest.approx(metrics["eval_hard_loss"])


def test_a_dict_of_sets_may_be_given(tmp_path: Path) -> None:
    metrics = quick(tmp_path, eval_dataset=Points(4)).evaluate({"other": Points(6, seed=9)}, metric_key_prefix="val")

    assert "val_other_loss" in metrics
    assert "eval_loss" not in metrics


def test_a_set_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"no evaluation set called 'medium'; eval_dataset has easy, hard"):
        quick(tmp_path, eval_dataset={"easy": Points(4), "hard": Points(4)}).evaluate("medium")
    with pytest.raises(ArgumentError, match=r"no evaluation set called 'medium'; eval_dataset has none"):
        quick(tmp_path, eval_dataset=Points(4)).evaluate("medium")


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_loss_is_one_over_samples_whatever_the_batch_size(tmp_path: Path, size: int) -> None:
    metrics = quick(tmp_path, eval_dataset=Points(10), per_device_eval_batch_size=size).evaluate()
    data = Points(10)
    with torch.no_grad():
        exact = nn.functional.mse_loss(line().double()(data.x.double())["logits"], data.y.double())

    assert metrics["eval_loss"] == pytest.approx(exact.item(), rel=1e-6)


def test_speeds_and_the_time_to_prepare(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset=Points(10))
    first = trainer.evaluate()

    assert first.keys() == {
        "eval_loss", "eval_model_preparation_time", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second",
        "epoch",
    }  # fmt: skip


# Predictions


class Many(Line):
    """Several outputs, some of which nobody asked for."""

    config = SimpleNamespace(keys_to_ignore_at_inference=["cache"])

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {**super().forward(x, labels), "hidden": x * 2, "cache": x * 3}


def test_outputs_without_the_loss_and_what_is_ignored(tmp_path: Path) -> None:
    trainer = quick(tmp_path, model=Many())
    logits, hidden = trainer.predict(Points(4)).predictions
    assert (logits.shape, hidden.shape) == ((4, 1), (4, 3))

    logits, cache = trainer.predict(Points(4), ignore_keys=["hidden"]).predictions
    np.testing.assert_array_equal(cache, Points(4).x.numpy() * 3)
    assert isinstance(trainer.predict(Points(4), ignore_keys=["hidden", "cache"]).predictions, np.ndarray)


def test_a_set_without_labels_gives_predictions_only(tmp_path: Path) -> None:
    unlabelled = [{"x": row} for row in Points(6).x]
    output = quick(tmp_path, compute_metrics=lambda _: {"never": 1.0}).predict(unlabelled)

    expected = line()(Points(6).x)["logits"].detach().numpy()
    np.testing.assert_allclose(output.predictions, expected, rtol=1e-6)
    assert output.label_ids is None
    assert output.metrics.keys() == {
        "test_model_preparation_time", "test_runtime", "test_samples_per_second", "test_steps_per_second",
    }  # fmt: skip


def test_an_evaluation_without_a_figure_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    unlabelled = [{"x": torch.ones(3)} for _ in range(4)]
    trainer = quick(tmp_path, eval_dataset=unlabelled)
    for _ in range(2):
        assert "eval_loss" not in trainer.evaluate()
    trainer.predict(unlabelled)

    assert caplog.text.count("An evaluation gives neither a loss nor a figure") == 1
    assert "(label_names: labels)" in caplog.text


def test_a_model_that_returns_a_bare_tensor(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    inputs = [{"input": row} for row in Points(5).x]

    assert quick(tmp_path, model=model, train_dataset=None).predict(inputs).predictions.shape == (5, 2)


def test_labels_by_other_names(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor, start: Any = None, end: Any = None) -> dict[str, Tensor]:
            prediction = self.layer(x)
            if start is None:
                return {"logits": prediction}
            return {"loss": (prediction - start - end).square().mean(), "logits": prediction}

    data = [{"x": row, "start": row[:1], "end": row[1:2]} for row in Points(4).x]
    output = quick(tmp_path, model=Two(), train_dataset=data, label_names=["start", "end"]).predict(data)

    _, end = output.label_ids
    np.testing.assert_array_equal(end, Points(4).x[:, 1:2].numpy())
    assert output.metrics["test_loss"] > 0


class Contrast(nn.Module):
    """Has a loss without labels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor, return_loss: bool = True) -> dict[str, Tensor]:
        prediction = self.layer(x)
        return {"loss": prediction.square().mean(), "logits": prediction} if return_loss else {"logits": prediction}


def test_a_model_that_has_a_loss_without_labels(tmp_path: Path) -> None:
    data = [{"x": row} for row in Points(4).x]
    trainer = quick(tmp_path, model=Contrast(), train_dataset=data, eval_dataset=data)

    assert trainer.can_return_loss
    assert trainer.label_names == []
    assert trainer.evaluate()["eval_loss"] > 0
    loss, _, labels = trainer.prediction_step(trainer.model, {"x": Points(4).x, "return_loss": False}, False)
    assert loss is labels is None


def test_only_the_loss_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset=Points(4), prediction_loss_only=True)

    assert trainer.predict(Points(4)).predictions is None
    batch = {"x": torch.ones(1, 3), "labels": torch.ones(1, 1)}
    loss, logits, labels = trainer.prediction_step(trainer.model, batch, prediction_loss_only=True)
    assert loss is not None
    assert logits is labels is None


@pytest.mark.parametrize(("metrics", "asked"), [(None, True), (dict, None)], ids=["loss only", "metrics"])
def test_predictions_are_kept_only_for_a_metric(tmp_path: Path, metrics: Any, asked: bool | None) -> None:
    told: list[Any] = []

    class Notes(Trainer):
        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            told.append(kwargs["prediction_loss_only"])
            return super().evaluation_loop(*args, **kwargs)

    trainer = quick(tmp_path, Notes, eval_dataset=Points(4), compute_metrics=metrics and (lambda _: {}))
    trainer.evaluate()

    assert told == [asked]


def test_batch_metrics_see_batches_and_the_last(tmp_path: Path) -> None:
    seen: list[Any] = []

    def metrics(prediction: Any, compute_result: bool) -> dict[str, float]:
        seen.append((len(prediction.predictions), compute_result))
        return {"batches": float(len(seen))} if compute_result else {}

    trainer = quick(
        tmp_path,
        eval_dataset=Points(10),
        per_device_eval_batch_size=4,
        batch_eval_metrics=True,
        compute_metrics=metrics,
    )

    assert trainer.evaluate()["eval_batches"] == 3.0
    assert seen == [(4, False), (4, False), (2, True)]


# Modes and precision


@pytest.mark.parametrize(("setting", "dtype"), [("bf16_full_eval", torch.bfloat16), ("fp16_full_eval", torch.float16)])
def test_evaluation_in_half_precision(tmp_path: Path, setting: str, dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    class Looks(Line):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            seen.append(self.layer.weight.dtype)
            return super().forward(x.to(self.layer.weight.dtype))

    trainer = quick(tmp_path, model=Looks(), train_dataset=None, **{setting: True})
    trainer.predict([{"x": row} for row in Points(2).x])

    assert seen == [dtype]


def test_training_goes_on_after_an_evaluation(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset=Points(4), eval_strategy="steps", eval_steps=1)
    modes: list[bool] = []
    trainer.model.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    trainer.train()

    assert modes == [True, False] * 5


def test_evaluation_before_the_first_step(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset=Points(4), eval_on_start=True, eval_strategy="epoch")
    trainer.train()

    assert [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry] == [0, 5]


def test_evaluation_needs_no_gradients_and_leaves_none(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset=Points(4))
    trainer.model.register_forward_pre_hook(lambda *_: setattr(trainer, "grad", torch.is_grad_enabled()))
    trainer.evaluate()

    assert trainer.grad is False
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_an_evaluation_that_fails_closes_what_callbacks_hold(tmp_path: Path) -> None:
    closed: list[int] = []

    class Holds:
        def on_log(self, *_: Any, **__: Any) -> None: ...

        def close(self) -> None:
            closed.append(1)

    trainer = quick(tmp_path, callbacks=[Holds()], eval_dataset=Points(4), compute_metrics=lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.evaluate()

    assert closed == [1]


# NaN


class Spoilt(Line):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        outputs = super().forward(x, labels)
        return {**outputs, "loss": outputs["loss"] * (math.nan if self.training is False and x[0, 0] > 0 else 1.0)}


@pytest.mark.parametrize(("asked", "finite"), [({}, False), ({"logging_nan_inf_filter": True}, True)])
def test_nan_is_hidden_only_where_that_was_asked_for_by_name(tmp_path: Path, asked: Any, finite: bool) -> None:
    trainer = quick(tmp_path, model=Spoilt(), eval_dataset=Points(8), per_device_eval_batch_size=1, **asked)

    assert math.isfinite(trainer.evaluate()["eval_loss"]) is finite


# What is best

BEST: dict[str, Any] = {
    "eval_dataset": Points(4),
    "eval_strategy": "steps",
    "eval_steps": 1,
    "load_best_model_at_end": False,
}


def noted(trainer: Any, values: list[float]) -> list[tuple[bool, float, int | None]]:
    notes = []
    for step, value in enumerate(values, start=1):
        trainer.state.global_step = step
        better = trainer._determine_best_metric({"eval_f1": value}, trial=None)
        notes.append((better, trainer.state.best_metric, trainer.state.best_global_step))
    return notes


@pytest.mark.parametrize(
    "values",
    [[0.1, 0.3, 0.2, 0.4], [0.3, 0.3, 0.3], [math.inf, 0.5, -math.inf], [0.0, -1.0, 1.0]],
    ids=["plain", "ties", "infinite", "negative"],
)
@pytest.mark.parametrize("greater", [True, False])
def test_the_best_is_noted_as_in_the_original(tmp_path: Path, values: list[float], greater: bool) -> None:
    settings = {"metric_for_best_model": "f1", "greater_is_better": greater, "save_strategy": "steps", "save_steps": 1}
    theirs = transformers.Trainer(
        line(),
        transformers.TrainingArguments(
            str(tmp_path), report_to="none", use_cpu=True, eval_strategy="steps", eval_steps=1, **settings
        ),
        eval_dataset=Points(4),
    )
    ours = quick(tmp_path, **BEST, **settings, compute_metrics=dict)

    assert noted(ours, values) == noted(theirs, values)


def test_nan_never_wins(tmp_path: Path) -> None:
    trainer = quick(tmp_path, **BEST, metric_for_best_model="f1", compute_metrics=dict)

    assert [better for better, *_ in noted(trainer, [math.nan, 0.5, math.nan, 0.6])] == [False, True, False, True]
    assert trainer.state.best_metric == 0.6


def test_nothing_is_best_without_a_metric(tmp_path: Path) -> None:
    trainer = quick(tmp_path, eval_dataset=Points(4), eval_strategy="epoch")
    trainer.train()

    assert trainer._determine_best_metric({"eval_loss": 1.0}, None) is False
    assert trainer.state.best_metric is None


def test_a_metric_that_no_evaluation_gives_is_told(tmp_path: Path) -> None:
    trainer = quick(tmp_path, **BEST, metric_for_best_model="f2", compute_metrics=lambda _: {"f1": 1.0})
    message = r"metric_for_best_model is 'f2', but no evaluation gives 'eval_f2'; it gives eval_loss, eval_f1"
    with pytest.raises(ArgumentError, match=message):
        trainer.train()


def test_a_schedule_that_waits_for_a_metric_is_stepped_with_it(tmp_path: Path) -> None:
    class Rises(Trainer):
        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            return {"eval_loss": float(self.state.global_step)}

    trainer = quick(
        tmp_path,
        Rises,
        eval_dataset=Points(4),
        eval_strategy="steps",
        eval_steps=1,
        eval_on_start=True,
        learning_rate=1.0,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"patience": 1, "factor": 0.5, "threshold": 0.0},
        logging_steps=1,
        metric_for_best_model="loss",
    )
    trainer.train()

    # Losses 1 to 5: the first is the best, the third is one too many.
    assert [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry] == [1, 1, 1, 0.5, 0.5]


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize(
    ("settings", "metrics", "mode"),
    [
        ({}, None, "min"),
        ({"metric_for_best_model": "accuracy"}, None, "max"),
        ({"metric_for_best_model": "wer"}, None, "min"),
        ({"metric_for_best_model": "wer", "greater_is_better": True}, None, "max"),
        ({"metric_for_best_model": "accuracy", "lr_scheduler_kwargs": {"mode": "min"}}, None, "min"),
        # What the object says of itself comes before its name.
        ({"metric_for_best_model": "score"}, {"score": torchmetrics.MeanSquaredError()}, "min"),
    ],
)
def test_a_schedule_that_waits_for_a_metric_goes_its_way(
    tmp_path: Path, schedule: str, settings: dict[str, Any], metrics: Any, mode: str
) -> None:
    trainer = quick(
        tmp_path,
        **{"eval_dataset": Points(4), "eval_strategy": "epoch", "lr_scheduler_type": schedule, **settings},
        compute_metrics=None if metrics else lambda _: {"accuracy": 1.0, "wer": 1.0},
        metrics=metrics,
    )
    trainer.train()

    assert trainer.lr_scheduler.mode == mode


def test_a_better_model_is_saved_at_once_where_it_is_to_be_loaded(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 2.0, 0.5, 4.0])

    class Given(Trainer):
        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            metrics = {"eval_loss": next(losses)}
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    trainer = quick(
        tmp_path, Given, **{**BEST, "load_best_model_at_end": True, "save_strategy": "steps", "save_steps": 100}
    )
    trainer.train()

    # Steps 1, 2 and 4 were the best of their time; step 5 is the last.
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-1", "checkpoint-2", "checkpoint-4", "checkpoint-5",
    ]  # fmt: skip
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-4")


def test_the_arguments_are_not_needed_to_predict(tmp_path: Path) -> None:
    trainer = Trainer(line(), arguments(tmp_path))

    assert len(trainer.predict(Points(3)).predictions) == 3

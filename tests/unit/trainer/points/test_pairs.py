"""Losses that come with their weights, through the trainer: logs, evaluation, resume; and counts that are watched."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Line, Points, quick
from torch import Tensor, nn

from surestep import LossSum, MSELoss, Trainer
from surestep.errors import ModelError
from surestep.losses.items import WatchedCount

STEADY = {
    "optim": "sgd",
    "learning_rate": 0.1,
    "train_sampling_strategy": "sequential",
    "max_grad_norm": 0,
    "logging_steps": 1,
}


def parts(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> dict[str, Any]:
    """Errors, errors of positive labels alone, and a mean."""
    error, positive = outputs["logits"] - labels, labels > 0
    return {
        "main": LossSum(error.square().sum(), error.numel()),
        "positive": ((error.abs() * positive).sum(), positive.sum()),
        "size": outputs["logits"].square().mean(),
    }


def trained(folder: Path, *, size: int = 4, kind: type[Trainer] = Trainer, **settings: Any) -> Trainer:
    """Train on 20 samples in steps of 12 and 8, in micro-batches of `size`."""
    batches = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 12 // size}
    trainer = quick(folder, kind, **{**STEADY, **batches, **settings})
    trainer.train()
    return trainer


def weights(trainer: Trainer) -> Tensor:
    return nn.utils.parameters_to_vector(trainer.model.parameters()).detach()


def logged(trainer: Trainer, *names: str) -> list[dict[str, float]]:
    log = trainer.state.log_history
    return [{name: entry[name] for name in names} for entry in log if names[0] in entry]


@pytest.mark.parametrize("size", [1, 3, 4])
def test_any_micro_batch_trains_alike(tmp_path: Path, size: int) -> None:
    def pairs(*given: Any, **named: Any) -> dict[str, Any]:
        # A mean is the mean of the means of micro-batches, of which the last may be short.
        return {name: pair for name, pair in parts(*given, **named).items() if name != "size"}

    whole = trained(tmp_path / "whole", size=12, compute_loss_func=pairs)
    split = trained(tmp_path / "split", size=size, compute_loss_func=pairs)

    torch.testing.assert_close(weights(split), weights(whole), rtol=1e-5, atol=1e-7)
    for one, other in zip(logged(split, "loss_main"), logged(whole, "loss_main"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_each_part_is_logged_and_they_add_up(tmp_path: Path) -> None:
    trainer = trained(tmp_path, compute_loss_func=parts, eval_dataset=Points(7), eval_strategy="epoch")

    entries = logged(trainer, "loss", "loss_main", "loss_positive", "loss_size")
    assert len(entries) == 2
    for entry in entries:
        assert entry.pop("loss") == pytest.approx(sum(entry.values()), rel=1e-5)
    (evaluated,) = logged(trainer, "eval_loss", "eval_loss_main", "eval_loss_positive", "eval_loss_size")
    assert evaluated.pop("eval_loss") == pytest.approx(sum(evaluated.values()), rel=1e-6)


def test_a_lone_pair_is_logged_as_the_loss(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", size=12)
    pair = trained(tmp_path / "pair", compute_loss_func=MSELoss())

    torch.testing.assert_close(weights(pair), weights(plain))
    assert set(pair.state.log_history[0]) == set(plain.state.log_history[0])
    assert logged(pair, "loss", "grad_norm")[0] == pytest.approx(logged(plain, "loss", "grad_norm")[0], rel=1e-5)


def test_a_resumed_run_logs_the_parts_of_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = {"size": 4, "compute_loss_func": parts, "logging_steps": 3, "num_train_epochs": 3}
    whole = trained(tmp_path, **settings, save_strategy="steps", save_steps=2)
    resumed = quick(
        tmp_path,
        **{**STEADY, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
        compute_loss_func=parts,
        num_train_epochs=3,
    )
    resumed.args.logging_steps = 3
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))

    names = ("loss", "loss_main", "loss_positive", "loss_size")
    assert logged(resumed, *names) == logged(whole, *names)
    assert torch.equal(weights(resumed), weights(whole))


class Told(Trainer):
    """Parts of its own, whose weights it tells beforehand."""

    asked = 0

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(inputs["x"])
        loss = {name: pair for name, pair in parts(outputs, inputs["labels"]).items() if name != "size"}
        return (loss, outputs) if return_outputs else loss

    def weigh_loss(self, inputs: Any) -> Any:
        self.asked += 1
        return {"main": inputs["labels"].numel(), "positive": (inputs["labels"] > 0).sum()}


class Untold(Told):
    weigh_loss = Trainer.weigh_loss


@pytest.mark.parametrize("size", [1, 3, 4])
def test_an_override_may_tell_its_weights_beforehand(tmp_path: Path, size: int) -> None:
    told, untold = (trained(tmp_path / kind.__name__, size=size, kind=kind) for kind in (Told, Untold))

    # Each of 20 samples once, in micro-batches.
    assert (told.asked, untold.asked) == (-(-12 // size) + -(-8 // size), 0)
    torch.testing.assert_close(weights(told), weights(untold), rtol=1e-6, atol=1e-8)
    names = ("loss", "loss_main", "loss_positive")
    for one, other in zip(logged(told, *names), logged(untold, *names), strict=True):
        assert one == pytest.approx(other, rel=1e-6)


def test_the_weight_of_a_function_says_nothing_of_an_override(tmp_path: Path) -> None:
    class Both(Untold):
        pass

    assert quick(tmp_path, Both, compute_loss_func=MSELoss())._weigher() is None
    assert quick(tmp_path, compute_loss_func=MSELoss())._weigher() is not None
    assert quick(tmp_path, compute_loss_func=nn.CrossEntropyLoss(torch.ones(2)))._weigher() is None


class Pairs(Line):
    """A model whose loss comes with its weight."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:  # type: ignore[override]
        outputs = super().forward(x)
        return outputs if labels is None else {"loss": MSELoss()(outputs, labels), **outputs}


class Overrides(Trainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(inputs["x"])
        error = outputs["logits"] - inputs["labels"]
        loss = error.square().sum(), error.numel()
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(
    "settings",
    [{"model": Pairs()}, {"kind": Overrides}, {"compute_loss_func": MSELoss()}],
    ids=["the model", "an override", "a function"],
)
def test_a_pair_may_come_from_anywhere(tmp_path: Path, settings: Any) -> None:
    plain = quick(tmp_path / "plain", eval_dataset=Points(7))
    settings = {"kind": Trainer, **settings}
    pair = quick(tmp_path / "pair", settings.pop("kind"), eval_dataset=Points(7), **settings)
    pair.model.load_state_dict(plain.model.state_dict())
    for trainer in (plain, pair):
        trainer.train()

    torch.testing.assert_close(weights(pair), weights(plain))
    assert pair.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_an_evaluation_weighs_by_what_the_loss_weighs(tmp_path: Path, size: int) -> None:
    trainer = quick(tmp_path, compute_loss_func=parts, eval_dataset=Points(7), per_device_eval_batch_size=size)
    metrics = trainer.evaluate()
    points = Points(7)
    with torch.no_grad():
        whole = parts(trainer.model(points.x), points.y)

    assert metrics["eval_loss_main"] == pytest.approx(float(whole["main"].mean()), rel=1e-6)
    assert metrics["eval_loss_positive"] == pytest.approx(float(LossSum(*whole["positive"]).mean()), rel=1e-6)
    # A mean stands for its batch.
    assert metrics["eval_loss_size"] == pytest.approx(float(whole["size"]), rel=1e-6)


def test_a_metric_sees_the_loss_of_each_sample_s_batch(tmp_path: Path) -> None:
    seen: list[Any] = []
    trainer = quick(
        tmp_path,
        compute_loss_func=parts,
        eval_dataset=Points(4),
        include_for_metrics=["loss"],
        compute_metrics=lambda prediction: seen.append(prediction.losses) or {"ok": 1.0},
    )
    metrics = trainer.evaluate()

    assert seen[0].shape == (4,)
    assert seen[0].mean() == pytest.approx(metrics["eval_loss"], rel=1e-6)


def test_an_override_that_always_returns_outputs_is_told(tmp_path: Path) -> None:
    class Both(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            outputs = model(**inputs)
            return outputs["loss"], outputs

    with pytest.raises(ModelError, match=r"a tuple of a tensor of shape \(\), of type dict.*return_outputs is True"):
        quick(tmp_path, Both).train()


# Item counts that are watched


class Open(Line):
    """Takes any keyword, and uses none."""

    def forward(self, x: Tensor, labels: Tensor | None = None, **kwargs: Any) -> dict[str, Tensor]:
        return super().forward(x, labels)


def ignores(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return nn.functional.mse_loss(outputs["logits"], labels)


def uses(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return (outputs["logits"] - labels).square().sum() / num_items_in_batch


class Ignores(Trainer):
    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(inputs["x"])
        loss = nn.functional.mse_loss(outputs["logits"], inputs["labels"])
        return (loss, outputs) if return_outputs else loss


class Uses(Ignores):
    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if num_items_in_batch is None:
            return super().compute_loss(model, inputs, return_outputs)
        outputs = model(inputs["x"])
        loss = (outputs["logits"] - inputs["labels"]).square().sum() / num_items_in_batch.to("cpu").float()
        return (loss, outputs) if return_outputs else loss


class HandsOn(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, inputs, *args, **kwargs)


class Scaled(Ignores):
    loss_is_scaled_for_ga = True


WATCHED: dict[str, tuple[dict[str, Any], str | None]] = {
    "a function that ignores it": ({"compute_loss_func": ignores}, "does not use"),
    "a function that uses it": ({"compute_loss_func": uses}, "uses"),
    "an override that ignores it": ({"kind": Ignores}, "does not use"),
    "an override that uses it": ({"kind": Uses}, "uses"),
    "an override that hands it on": ({"kind": HandsOn}, "does not use"),
}


def first_step(folder: Path, size: int, **settings: Any) -> dict[str, float]:
    model = Open()
    model.load_state_dict(known())
    return logged(trained(folder, size=size, model=model, max_steps=1, **settings), "loss", "grad_norm")[0]


def known() -> Any:
    torch.manual_seed(0)
    return Line().state_dict()


@pytest.mark.parametrize("case", WATCHED)
def test_what_was_seen_of_a_count_is_said_with_how_to_declare_it(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings, said = WATCHED[case]
    with caplog.at_level(logging.INFO, logger="surestep"):
        first_step(tmp_path, 4, **settings)
    (line,) = [record.message for record in caplog.records if "loss_is_scaled_for_ga" in record.message]
    assert f" {said} num_items_in_batch" in line


@pytest.mark.parametrize("case", WATCHED)
def test_the_loss_of_a_split_step_is_that_of_a_whole_one(tmp_path: Path, case: str) -> None:
    settings = WATCHED[case][0]
    whole = first_step(tmp_path / "whole", 12, **settings)

    assert first_step(tmp_path / "split", 4, **settings) == pytest.approx(whole, rel=1e-5)


def test_what_a_class_declares_is_believed(tmp_path: Path) -> None:
    whole, split = (first_step(tmp_path / str(size), size, kind=Scaled) for size in (12, 4))

    assert split["loss"] == pytest.approx(3 * whole["loss"], rel=1e-5)


def test_a_forward_that_hands_keywords_to_a_strict_one_gets_no_count(tmp_path: Path) -> None:
    class Wraps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Line()
            self.inner.load_state_dict(known())

        def forward(self, **kwargs: Any) -> Any:
            return self.inner(**kwargs)

    run = {"remove_unused_columns": False, "label_names": ["labels"], "max_steps": 1}
    split = trained(tmp_path, size=4, model=Wraps(), **run)

    assert logged(split, "loss", "grad_norm")[0] == pytest.approx(first_step(tmp_path / "plain", 12), rel=1e-5)


def test_a_first_batch_in_which_nothing_counts_decides_nothing(tmp_path: Path) -> None:
    class Counts(Open):
        def forward(self, x: Tensor, labels: Tensor | None = None, **kwargs: Any) -> dict[str, Tensor]:
            outputs = Line.forward(self, x)
            if labels is None:
                return outputs
            kept = labels != -100
            count = kwargs.get("num_items_in_batch")
            total = ((outputs["logits"] - labels).square() * kept).sum()
            return {"loss": total / (kept.sum().clamp(min=1) if count is None else count), **outputs}

    samples = [{"x": torch.ones(3), "labels": torch.full((1,), -100)}] * 4
    samples += [{"x": torch.ones(3), "labels": torch.full((1,), label)} for label in (1, 2, 3, -100)]
    trainer = trained(tmp_path, size=4, model=Counts(), train_dataset=samples, gradient_accumulation_steps=1)

    assert trainer._divides_by_items


DESCRIBED: list[Callable[[Any], Any]] = [
    lambda n: n is None, lambda n: n.device, lambda n: n.dtype, lambda n: n.shape, repr, lambda n: n.to("cpu"),
    lambda n: isinstance(n, Tensor),
]  # fmt: skip
COMPUTED: list[Callable[[Any], Any]] = [
    lambda n: 2.0 / n, lambda n: n + 1, lambda n: n.to(torch.float32).clamp(min=1), int, lambda n: n.item(), bool,
    lambda n: torch.ones(()).div(n), lambda n: torch.tensor(1.0) / n.clone(),
]  # fmt: skip


@pytest.mark.parametrize(("looks", "used"), [(f, False) for f in DESCRIBED] + [(f, True) for f in COMPUTED])
def test_a_count_knows_whether_somebody_computed_with_it(looks: Callable[[Any], Any], used: bool) -> None:
    plain = torch.tensor(7)
    count = WatchedCount.of(plain.clone())
    result = looks(count)

    assert count.record.used is used
    if isinstance(result, Tensor) and used:
        assert type(result) is Tensor
        assert torch.equal(result, looks(plain))

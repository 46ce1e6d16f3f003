"""A preflight tries the run and leaves no trace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Line, Points, line, quick
from torch import Tensor, nn

from surestep import Trainer, TrainerCallback
from surestep.errors import PreflightError


class Busy(nn.Module):
    """Everything that a step changes besides weights: dropout's generator, statistics, a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        self.calls += 1
        prediction = self.last(self.dropout(self.norm(self.first(x))))
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


class Hears(TrainerCallback):
    """Notes every event."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            self.events.append(name)
        return super().__getattribute__(name)


def outcome(folder: Path, **settings: Any) -> tuple[list[Tensor], list[dict[str, Any]], list[str]]:
    hears = Hears()
    model = settings.pop("model", None) or Busy()
    parts = {} if "model_init" in settings else {"model": model}
    trainer = quick(
        folder,
        eval_dataset=Points(6),
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_steps=1,
        num_train_epochs=2,
        callbacks=[hears],
        **parts,
        **settings,
    )
    hears.events.clear()
    trainer.train()
    log = [
        {k: v for k, v in entry.items() if "second" not in k and "time" not in k} for entry in trainer.state.log_history
    ]
    return [*trainer.model.parameters(), *trainer.model.buffers()], log, hears.events


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fp16": True},
        {"gradient_accumulation_steps": 3, "optim": "sgd"},
        {"neftune_noise_alpha": None, "lr_scheduler_type": "reduce_lr_on_plateau"},
        {"model_init": Busy},
        {"dataloader_num_workers": 1},
    ],
)
def test_a_run_is_the_same_with_and_without(tmp_path: Path, settings: dict[str, Any]) -> None:
    weights, log, events = outcome(tmp_path / "without", **settings)
    same, other, heard = outcome(tmp_path / "with", preflight=True, **settings)

    assert all(torch.equal(one, two) for one, two in zip(weights, same, strict=True))
    assert repr(log) == repr(other)  # a norm that is NaN equals itself here
    assert events == heard


def test_a_name_is_waited_for_by_the_evaluations_of_training_alone(tmp_path: Path) -> None:
    given = {"eval_dataset": Points(4), "metric_for_best_model": "f1"}
    after, within = (quick(tmp_path, eval_strategy=when, **given).preflight() for when in ("no", "epoch"))

    assert [stage.verdict for stage in after.stages] == ["well", "well", "well", "skipped"]
    assert "metric_for_best_model is 'f1'" in within.problems[0]


def test_parameters_that_nothing_reaches_are_named(tmp_path: Path) -> None:
    class Spare(Line):
        def __init__(self) -> None:
            super().__init__()
            self.spare, self.frozen = nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)

    report = quick(tmp_path, model=Spare()).preflight()

    assert report.stages[1].figures.endswith("no gradient for spare.weight, spare.bias")
    assert report.ok


def test_an_optimizer_of_the_users_own_is_put_back(tmp_path: Path) -> None:
    model = line()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    quick(tmp_path, model=model, optimizers=(optimizer, None)).preflight()

    assert optimizer.state_dict()["state"] == {}
    assert torch.equal(model.layer.weight, line().layer.weight)


def test_nothing_is_left_in_the_output_folder(tmp_path: Path) -> None:
    trainer = quick(tmp_path / "out", save_strategy="epoch")
    assert trainer.preflight().ok

    assert list((tmp_path / "out").iterdir()) == []
    assert trainer.state.global_step == 0
    assert trainer.optimizer is None


def test_what_is_not_asked_for_is_not_tried(tmp_path: Path) -> None:
    report = quick(tmp_path).preflight()

    assert [(stage.name, stage.verdict) for stage in report.stages] == [
        ("training batch", "well"),
        ("training step", "well"),
        ("evaluation batch", "skipped"),
        ("save and load", "skipped"),
    ]


def test_the_table_is_printed_and_the_problem_below_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = quick(tmp_path, learning_rate=0.0, eval_dataset=Points(4), eval_strategy="epoch").preflight()

    printed = capsys.readouterr().out
    assert [stage.verdict for stage in report.stages] == ["well", "wrong", "skipped", "skipped"]
    assert all(word in printed for word in ("Preflight", "training step", "wrong", "- Every learning rate is 0"))
    with pytest.raises(PreflightError, match="Set learning_rate"):
        report.raise_for_problems()


def test_each_of_several_sets_is_tried(tmp_path: Path) -> None:
    sets = {"one": Points(4), "two": Points(8, seed=1)}
    trainer = quick(tmp_path, eval_dataset=sets, eval_strategy="epoch")
    figures = trainer.preflight().stages[2].figures

    assert "eval_one_loss" in figures
    assert "eval_two_loss" in figures


class Fails(Line):
    """Fails in evaluation."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        if not self.training:
            raise RuntimeError("not in this mode")
        return super().forward(x, labels)


def test_all_is_put_back_after_an_error_too(tmp_path: Path) -> None:
    model = Fails()
    before = model.layer.weight.clone()
    trainer = quick(tmp_path, Trainer, model=model, eval_dataset=Points(4), eval_strategy="epoch")
    report = trainer.preflight()

    (problem,) = report.problems
    assert re.fullmatch(r"RuntimeError: not in this mode \(test_flight.py, line \d+, in forward\)", problem)
    assert torch.equal(model.layer.weight, before)
    assert model.training
    assert "forward" not in vars(model)
    assert model.layer.weight.grad is None

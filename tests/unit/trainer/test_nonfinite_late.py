"""Steps that are not finite, read one step late as on an accelerator: the same as read at once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from tests.unit.trainer.spoiled import (
    FUSED,
    KINDS,
    Deep,
    Numbered,
    at,
    by_hand,
    groups_of,
    history,
    same,
    training,
    undone,
    weights,
)
from torch import Tensor

from surestep import Trainer
from surestep.errors import NonFiniteError
from surestep.trainer import nonfinite


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host run ahead, as if there were an accelerator; fused optimizers leave steps out on the CPU as well."""
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: True)


@pytest.mark.parametrize("logging_steps", [1, 2, 3, 7])
@pytest.mark.parametrize(("spoils", "bad"), KINDS, ids=["input", "loss", "gradient"])
def test_skipping_late_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoils: Any, bad: Any, logging_steps: int
) -> None:
    def run(folder: Path) -> Trainer:
        model = Deep(spoils, dropout=0.5, statistics=True)
        settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "save_strategy": "epoch"}
        settings |= {"logging_steps": logging_steps, **FUSED}
        trainer = training(folder, "skip", model=model, train_dataset=Numbered(bad), **settings)
        trainer.train()
        return trainer

    early = run(tmp_path / "early")
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: True)
    later = run(tmp_path / "late")

    assert same(weights(later.model), weights(early.model))
    assert history(later) == history(early)
    assert later.lr_scheduler.state_dict() == early.lr_scheduler.state_dict()
    assert same(tensors(later), tensors(early))


def tensors(trainer: Trainer) -> list[Tensor]:
    return [value for state in trainer.optimizer.state_dict()["state"].values() for value in state.values()]


@pytest.mark.filterwarnings("ignore:Metric .* will save all targets")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("spoils", "bad"), KINDS, ids=["input", "loss", "gradient"])
def test_training_metrics_do_not_know_of_a_skipped_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoils: Any, bad: Any, late: bool
) -> None:
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: late)
    asked = {
        "sums": "mse",
        "states": torchmetrics.MeanSquaredError(),
        # Keeps lists of predictions.
        "lists": torchmetrics.SpearmanCorrCoef(),
    }
    settings = {"logging_steps": 5, "learning_rate": 0.0, "per_device_train_batch_size": 2, **FUSED}
    trainer = training(
        tmp_path,
        "skip",
        model=Deep(spoils),
        train_dataset=Numbered(bad),
        train_metrics=asked,
        gradient_accumulation_steps=2,
        **settings,
    )
    trainer.train()

    kept = [Numbered()[number] for number in range(20) if number not in {8, 9, 10, 11}]
    x, labels = (torch.stack([sample[name] for sample in kept]) for name in ("x", "labels"))
    predicted = Deep()(x, labels, torch.zeros(1))["logits"].detach()
    error = float((predicted - labels).square().mean())
    rank = float(torchmetrics.functional.spearman_corrcoef(predicted.squeeze(1), labels.squeeze(1)))
    for entry in (entry for entry in trainer.state.log_history if "loss" in entry):
        assert [entry["sums"], entry["states"], entry["lists"]] == pytest.approx([error, error, rank], rel=1e-5)


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("logging_steps", [1, 50])
@pytest.mark.parametrize(("spoils", "bad"), KINDS, ids=["input", "loss", "gradient"])
def test_stopping_late_leaves_what_was_before(tmp_path: Path, spoils: Any, bad: Any, logging_steps: int) -> None:
    model = Deep(spoils, statistics=True)
    settings = {"logging_steps": logging_steps, "include_num_input_tokens_seen": "all", **FUSED}
    model.main_input_name = "x"
    trainer = training(tmp_path, "stop", model=model, train_dataset=Numbered(bad), **settings)
    with pytest.raises(NonFiniteError) as caught:
        trainer.train()
    expected = by_hand(Deep(statistics=True), Numbered(), groups_of(4, 1), set(range(2, 10)))

    assert (caught.value.step, caught.value.samples) == (3, [8, 9, 10, 11])
    assert same(weights(trainer.model), expected)
    assert trainer.optimizer.state_dict()["state"][0]["step"] == 2
    assert (trainer.state.global_step, trainer.state.epoch, trainer.lr_scheduler.last_epoch) == (2, 0.4, 2)
    assert (trainer._run.stretch.done, trainer._run.position.samples) == (2, 8)
    assert trainer.state.num_input_tokens_seen == 2 * 12


@pytest.mark.usefixtures("late")
def test_what_is_saved_after_a_late_stop_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    settings = {"logging_steps": 50, **FUSED}
    broken = training(
        tmp_path, "stop", model=Deep(dropout=0.5, statistics=True), train_dataset=Numbered((9,)), **settings
    )
    with pytest.raises(NonFiniteError):
        broken.train()
    broken._commit_checkpoint(broken.model, None)
    mended = training(tmp_path, "stop", model=Deep(dropout=0.5, statistics=True), **settings)
    mended.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    whole = training(tmp_path / "whole", "stop", model=Deep(dropout=0.5, statistics=True), **settings)
    whole.train()

    assert same(weights(mended.model), weights(whole.model))
    assert mended.train_output.training_loss == whole.train_output.training_loss


@pytest.mark.usefixtures("late")
def test_a_failure_in_the_last_step_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="Step 5"):
        training(tmp_path, "stop", train_dataset=Numbered((19,)), logging_steps=50, num_train_epochs=1, **FUSED).train()


@pytest.mark.usefixtures("late")
def test_an_optimizer_that_cannot_leave_a_step_out_is_read_every_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = training(tmp_path, "skip", train_dataset=Numbered((9,)), optim="rmsprop", logging_steps=50)
    caplog.set_level(logging.WARNING, "surestep")
    trainer.train()

    assert "RMSprop cannot leave a step out on the device" in caplog.text
    assert all(weight.isfinite().all() for weight in weights(trainer.model))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, ["nonfinite='skip' reads the loss and the norm of the gradients at every step"]),
        ({"fp16": True}, ["fp16=True reads whether the gradients overflowed at every step"]),
        ({"nonfinite": "ignore"}, []),
    ],
)
def test_what_is_read_every_step_is_said_at_the_start(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    says: list[str],
) -> None:
    monkeypatch.setattr(nonfinite, "_waits", lambda device: True)
    training(tmp_path, "skip", **{"max_steps": 3, **settings}).train()

    waiting = [line for line in capsys.readouterr().err.splitlines() if "the host waits" in line]
    assert len(waiting) == len(says)
    for line, start in zip(waiting, says, strict=True):
        assert line.startswith(f"INFO surestep: {start}")
        assert "(cpu)" in line


@pytest.mark.parametrize(
    ("kind", "waits", "ahead"),
    [("cpu", False, False), ("mps", True, False), ("xpu", True, False), ("cuda", True, True)],
)
def test_the_host_waits_for_every_device_but_itself(kind: str, waits: bool, ahead: bool) -> None:
    device = torch.device(kind)

    assert (nonfinite._waits(device), nonfinite._runs_ahead(device)) == (waits, ahead)


@pytest.mark.usefixtures("late")
def test_the_loss_scale_is_told_of_late_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = training(tmp_path, "stop", model=Deep(at(9, undone)), fp16=True, num_train_epochs=8, **FUSED)
    caplog.set_level(logging.WARNING, "surestep")
    trainer.train()

    assert trainer.state.global_step == 40
    assert caplog.text.count("20 steps in a row have overflowed in float16") == 1

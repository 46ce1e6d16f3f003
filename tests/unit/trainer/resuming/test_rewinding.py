"""A run that goes back to its last checkpoint is one that never had the step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.trainer.spoiled import (
    FUSED,
    Deep,
    Numbered,
    by_hand,
    groups_of,
    history,
    same,
    training,
    weights,
)
from torch import Tensor

from surestep import Trainer, TrainerCallback
from surestep.errors import ArgumentError, NonFiniteError
from surestep.trainer import nonfinite
from surestep.trainer.nonfinite import LIMIT


def only(number: int) -> Any:
    """Spoil the loss of one forward, counted from 1."""
    seen: list[int] = []

    def spoil(module: Any, loss: Tensor, numbers: Tensor) -> Tensor:
        seen.append(1)
        return loss * (math.nan if len(seen) == number else 1.0)

    return spoil


def from_the(number: int) -> Any:
    """Spoil every loss from a forward on, whatever is put back."""
    seen: list[int] = []

    def spoil(module: Any, loss: Tensor, numbers: Tensor) -> Tensor:
        seen.append(1)
        return loss * (math.nan if len(seen) >= number else 1.0)

    return spoil


def rewinding(folder: Path, *, bad: tuple[int, ...] = (9,), save_steps: int = 2, **settings: Any) -> Trainer:
    """Train with dropout and statistics, whose draws a rewind takes back too."""
    usual = {"save_strategy": "steps", "save_steps": save_steps, "model": Deep(dropout=0.5, statistics=True), **FUSED}
    return training(folder, "rewind", train_dataset=Numbered(bad), **{**usual, **settings})


def without(*steps: int) -> list[Tensor]:
    """Return the weights of a run by hand whose steps, counted from 0, do not draw, update or turn the schedule."""
    model = Deep(dropout=0.5, statistics=True)
    torch.manual_seed(42)

    class Drawing(Numbered):
        """The loader draws at the beginning of each epoch, for its workers."""

        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 0:
                torch.empty((), dtype=torch.int64).random_()
            return super().__getitem__(index)

    return by_hand(model, Drawing(), groups_of(4, 1), set(steps))


@pytest.mark.parametrize("reading", ["now", "late"])
@pytest.mark.parametrize("save_steps", [1, 2, 5])
@pytest.mark.parametrize("logging_steps", [1, 3])
def test_a_rewound_run_is_one_that_never_had_these_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_steps: int, logging_steps: int, reading: str
) -> None:
    monkeypatch.setattr(nonfinite, "_runs_ahead", lambda device: reading == "late")
    # The first checkpoint comes before the failure.
    bad, left = ((), {7}) if save_steps == 5 else ((9,), {2, 7})
    model = Deep(only(8) if save_steps == 5 else None, dropout=0.5, statistics=True)
    trainer = rewinding(tmp_path, bad=bad, save_steps=save_steps, model=model, logging_steps=logging_steps)
    trainer.train()

    assert trainer.state.global_step == 10
    assert trainer.lr_scheduler.last_epoch == 10 - len(left)
    assert trainer._run.left_out.steps == len(left)
    assert same(weights(trainer.model), without(*left))


@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_a_resume_of_a_rewound_run_is_exact(tmp_path: Path, step: int) -> None:
    whole = rewinding(tmp_path)
    whole.train()
    later = rewinding(tmp_path / "later")
    later.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))

    assert same(weights(later.model), weights(whole.model))
    assert history(later) == history(whole)


def test_what_was_left_out_is_not_tried_again_after_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewinding(tmp_path, num_train_epochs=1).train()
    caplog.clear()
    later = rewinding(tmp_path / "later", num_train_epochs=1)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))

    assert later._run.left_out.places == {(0, 8)}
    assert "not finite" not in caplog.text


def test_a_rewind_may_cross_epochs(tmp_path: Path) -> None:
    epochs: list[float] = []

    class Notes(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            epochs.append(state.epoch)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            epochs.append(-state.epoch)

    model = Deep(only(8), dropout=0.5, statistics=True)
    trainer = rewinding(tmp_path, bad=(), model=model, save_steps=4, callbacks=[Notes()])
    trainer.train()

    assert same(weights(trainer.model), without(7))
    assert epochs == [0, -1.0, 1.0, 0.8, -1.0, 1.0, -2.0]
    assert [entry["step"] for entry in trainer.state.log_history] == [*range(1, 11), 10]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="no checkpoint of this run to go back to"):
        rewinding(tmp_path, save_steps=4).train()


def test_what_another_run_saved_is_not_gone_back_to(tmp_path: Path) -> None:
    rewinding(tmp_path, bad=(), save_steps=2).train()
    with pytest.raises(NonFiniteError, match="no checkpoint of this run"):
        rewinding(tmp_path, bad=(1,)).train()


def test_a_resumed_run_may_go_back_to_what_it_began_with(tmp_path: Path) -> None:
    rewinding(tmp_path, bad=()).train()
    later = rewinding(tmp_path, save_steps=100)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))

    assert later._run.left_out.steps == 2
    assert all(weight.isfinite().all() for weight in weights(later.model))


def test_a_run_that_goes_back_for_ever_stops(tmp_path: Path) -> None:
    trainer = rewinding(tmp_path, bad=(), model=Deep(from_the(5)), num_train_epochs=30, save_steps=4)
    with pytest.raises(NonFiniteError, match=f"gone back {LIMIT} times for steps that follow each other"):
        trainer.train()


@pytest.mark.parametrize("settings", [{"save_strategy": "no"}, {"save_strategy": "epoch", "save_only_model": True}])
def test_a_rewind_wants_checkpoints(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match='nonfinite="rewind" goes back to a checkpoint'):
        training(tmp_path, "rewind", **settings)

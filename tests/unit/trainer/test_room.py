"""What a run says at its start of a disk that will not hold its checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tests.small import Points, quick
from tests.unit.checkpoint.test_estimate import Curious

from surestep import Trainer, TrainerCallback
from surestep.checkpoint import space
from surestep.checkpoint.space import Room, human
from surestep.errors import SaveError
from surestep.trainer import room as module
from surestep.trainer import saves

SAVES: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}
EVALUATES: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 5, "eval_dataset": Points(4)}


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="surestep")


def has(monkeypatch: pytest.MonkeyPatch, free: int | None, file: int | None = None) -> None:
    for place in (module, space):
        monkeypatch.setattr(place, "room_at", lambda folder: Room(free, file))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 10),
        ({"save_steps": 4}, 3),
        ({"save_steps": 0.5}, 2),
        ({"save_total_limit": 2}, 3),
        ({"save_total_limit": 1, **EVALUATES, "metric_for_best_model": "loss"}, 3),
        ({"save_total_limit": 3, **EVALUATES, "metric_for_best_model": "loss"}, 4),
        ({"save_total_limit": 2, **EVALUATES, "save_keep_best": 3}, 6),
        ({"save_keep_every": 5}, 4),
        ({"save_total_limit": 2, **EVALUATES, "track_best": ["loss"]}, 3),
        ({"save_strategy": "epoch"}, 2),
    ],
)
def test_the_checkpoints_of_a_run_are_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
    count: int,
) -> None:
    size = 50_000
    has(monkeypatch, 2**30)
    trainer = quick(tmp_path / "fits", **{**SAVES, **settings})
    trainer.train()
    assert "left" not in caplog.text
    has(monkeypatch, size)
    quick(tmp_path / "full", **{**SAVES, **settings}).train()
    assert f"there are up to {count} at a time, the one being written included" in caplog.text
    assert f"has {human(size)} left" in caplog.text


def test_those_that_are_there_are_not_needed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quick(tmp_path, **{**SAVES, "max_steps": 3, "save_total_limit": 3}).train()
    has(monkeypatch, 20_000)
    with pytest.raises(SaveError):
        quick(tmp_path, **{**SAVES, "save_total_limit": 3}).train(resume_from_checkpoint=True)
    assert "up to 4 at a time, the one being written included (3 are there)" in caplog.text


def test_a_limit_on_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has(monkeypatch, None, 100)
    trainer = quick(tmp_path, **SAVES, on_save_error="stop")
    with pytest.raises(OSError, match="over the limit for files"):
        trainer.train()
    assert "may have 100 bytes at most (ulimit -f), and the largest of a checkpoint has about" in caplog.text
    assert trainer.state.global_step == 1


def test_a_save_that_does_not_fit_is_left_out_by_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Fills(Trainer):
        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            if self.state.global_step == 4:
                has(monkeypatch, 1000)

    trainer = quick(tmp_path, Fills, **SAVES, on_save_error="stop")
    monkeypatch.setattr(saves, "room_at", lambda folder: Room(1000, None))
    with pytest.raises(SaveError, match=r"Step 5: .* not begun.* It takes about \d+\.\d KiB\. 1000 bytes are free"):
        trainer.train()
    assert (tmp_path / "checkpoint-4").is_dir()


def test_an_optimizer_that_shows_its_state_late_is_asked_after_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(Trainer):
        def create_optimizer(self, model: Any = None) -> Any:
            self.optimizer = Curious(self.model.parameters(), lr=0.1)
            return self.optimizer

    has(monkeypatch, 100)
    told = {}

    class Notes(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            told[state.global_step] = "has 100 bytes left" in caplog.text

    with pytest.raises(SaveError, match="not enough room"):
        quick(tmp_path, Late, **{**SAVES, "save_steps": 9}, callbacks=[Notes()]).train()
    assert (told[0], told[1]) == (False, True)


def test_an_override_is_tried_although_the_estimate_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Small(Trainer):
        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            (Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}" / "a").write_text("a")

    has(monkeypatch, 100)
    quick(tmp_path, Small, **{**SAVES, "max_steps": 1}).train()
    assert "has 100 bytes left" in caplog.text
    assert (tmp_path / "checkpoint-1" / "a").is_file()

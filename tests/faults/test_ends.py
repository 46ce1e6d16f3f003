"""A run that is killed when its last step, or that of an epoch, is saved and what comes after it is not done yet."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Reference
from tests.faults.stage import Stage
from tests.faults.test_signals import check_goes_on, said

# Saved at every step, of which an epoch has six; whatever else is due comes at the end of an epoch.
EPOCHS = {"save_steps": 1, "eval_strategy": "epoch", "logging_strategy": "epoch"}
# The places of a step: when it is made, when it is saved, when its epoch ends, in what is due then, at the end of all.
PLACES = [
    ("step_end", 6),
    ("committed", 1),
    ("epoch_end", 1),
    ("evaluating", 1),
    ("evaluating", 8),
    ("step_end", 6),
    ("committed", 1),
    ("epoch_end", 1),
    ("evaluating", 4),
    ("train_end", 1),
]
PATIENCE: dict[str, Any] = {"greater_is_better": True, "metric_for_best_model": "loss"}
# Where patience ends a run: settings, and how often it has saved by then.
OUT_OF_PATIENCE = {
    "within an epoch": ({"eval_steps": 2, "save_steps": 1}, 4),
    "at the end of one": ({"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 4}, 2),
}


def killed_at(stage: Stage, folder: Path, point: str, count: int, ranks: int = 1, **case: Any) -> None:
    """Let a run begin, or go on, until it comes to a point for so many times."""
    planted = {**case, "point": point, "count": count, "signals": ["SIGKILL"]}
    assert stage.run(folder, ranks, case=planted) == [-signal.SIGKILL] * ranks, said(folder)


def test_killed_at_every_place_of_the_last_step_of_an_epoch(stage: Stage, reference: Reference, tmp_path: Path) -> None:
    whole = reference(settings=EPOCHS)
    assert [entry["step"] for entry in whole["written"] if entry["event"] == "evaluate"] == [6, 6, 12, 12]
    for point, count in PLACES:
        killed_at(stage, tmp_path, point, count, settings=EPOCHS)
    check_goes_on(stage, tmp_path, whole, settings=EPOCHS)


def test_a_run_that_ends_within_an_epoch_ends_that_too(stage: Stage, reference: Reference, tmp_path: Path) -> None:
    settings = {**EPOCHS, "max_steps": 8}
    killed_at(stage, tmp_path, "committed", 8, 2, settings=settings)
    killed_at(stage, tmp_path, "epoch_end", 1, 2, settings=settings)
    check_goes_on(stage, tmp_path, reference(2, settings=settings), 2, settings=settings)


@pytest.mark.parametrize("end", OUT_OF_PATIENCE)
def test_a_run_out_of_patience_makes_no_step_more(end: str, stage: Stage, reference: Reference, tmp_path: Path) -> None:
    settings, saves = OUT_OF_PATIENCE[end]
    case: dict[str, Any] = {"patience": 1, "one_set": True, "settings": {**PATIENCE, **settings}}
    whole = reference(**case)
    killed_at(stage, tmp_path, "committed", saves, **case)
    killed_at(stage, tmp_path, "train_end", 1, **case)
    check_goes_on(stage, tmp_path, whole, **case)


def test_time_that_is_used_up_is_used_up_for_the_run(stage: Stage, tmp_path: Path) -> None:
    """However often it is started; more time takes it on."""
    case: dict[str, Any] = {"settings": {**EPOCHS, "max_time": 0.01}}
    killed_at(stage, tmp_path, "committed", 1, **case)
    ends = []
    for _ in range(2):
        assert stage.run(tmp_path, case=case) == [0]
        end = json.loads((tmp_path / "end.json").read_text())
        ends.append({name: end[name] for name in ("step", "weights", "log", "written")})
    assert ends[0]["step"] == 1
    assert ends[1] == ends[0]
    assert "max_time=0.01 (seconds) is used up at step 1: no step is made" in said(tmp_path)
    assert "Its max_time is used up; to train on, write a longer one." in said(tmp_path)
    case["settings"]["max_time"] = None
    assert stage.run(tmp_path, case=case) == [0]
    assert json.loads((tmp_path / "end.json").read_text())["step"] == 12

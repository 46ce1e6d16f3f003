"""The saves of a run: which checkpoints stay, and what a run is told of those that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.small import Points, arguments, quick

from surestep import Trainer
from surestep.errors import ArgumentError, SaveError

# Of the evaluations after each step, from step 1 on.
SCORES = [0.5, 0.9, 0.1, 0.8, 0.7, 0.95, 0.2, 0.3, 0.4, 0.0]


def scored(folder: Path, **settings: Any) -> Trainer:
    def figures(_: Any) -> dict[str, float]:
        step = trainer.state.global_step
        return {"score": SCORES[step - 1] if step else 0.0}

    evaluated = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "eval_dataset": Points(4),
        "compute_metrics": figures,
        "metric_for_best_model": "score",
        "greater_is_better": True,
        "save_strategy": "steps",
        "save_steps": 1,
        "num_train_epochs": 2,
    }
    trainer = quick(folder, **{**evaluated, **settings})
    return trainer


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"save_keep_best": 3}, [2, 4, 6, 10]),
        ({"save_keep_best": 1, "save_total_limit": 2}, [6, 9, 10]),
        ({"save_keep_every": 4, "metric_for_best_model": None}, [4, 8, 10]),
        ({"save_keep_every": 4, "save_keep_best": 2, "save_total_limit": 2}, [2, 4, 6, 8, 9, 10]),
        ({"save_keep_best": 2, "greater_is_better": False}, [3, 10]),
        ({"save_keep_best": 2, "load_best_model_at_end": True, "save_total_limit": 1}, [2, 6]),
        ({"save_keep_best": 1, "track_best": ["score:min"]}, [6, 10]),
        # Not on the schedule, and saved at once for being among the best.
        ({"save_keep_best": 2, "save_steps": 5}, [2, 6, 10]),
        ({"save_keep_best": 2, "save_strategy": "best"}, [2, 6]),
    ],
)
def test_what_stays(tmp_path: Path, rules: dict[str, Any], expected: list[int]) -> None:
    scored(tmp_path, **rules).train()
    assert steps(tmp_path) == expected


def test_what_is_best_is_known_after_a_resume(tmp_path: Path) -> None:
    scored(tmp_path, save_keep_best=2, max_steps=5).train()
    assert steps(tmp_path) == [2, 4, 5]
    scored(tmp_path, save_keep_best=2).train(resume_from_checkpoint=True)
    assert steps(tmp_path) == [2, 6, 10]


def test_the_manifest_says_who_wrote_it_and_how_good_it_is(tmp_path: Path) -> None:
    trainer = scored(tmp_path, save_keep_best=2)
    trainer.train()
    content = json.loads((tmp_path / "checkpoint-6" / "manifest.json").read_text())
    assert (content["step"], content["run"], content["score"]) == (6, trainer._store.run, 0.95)


def test_the_best_need_evaluations() -> None:
    with pytest.raises(ArgumentError, match='save_keep_best=2 needs evaluations, and eval_strategy is "no"'):
        arguments(Path("out"), save_keep_best=2)
    assert arguments(Path("out"), save_keep_best=2, eval_strategy="epoch").metric_for_best_model == "loss"


@pytest.mark.parametrize("name", ["save_keep_best", "save_keep_every"])
def test_none_is_no_number_of_checkpoints(name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        arguments(Path("out"), eval_strategy="epoch", **{name: 0})


def test_a_folder_that_cannot_be_written_to_is_told_at_the_start(tmp_path: Path) -> None:
    trainer = quick(tmp_path / "run", save_strategy="steps")
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("a file")
    with pytest.raises(SaveError, match=r"No checkpoint can be written to .*run'.*Write another output_dir"):
        trainer.train()
    assert trainer.state.global_step == 0

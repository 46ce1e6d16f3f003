"""The best of several metrics on two ranks, and a figure that no evaluation gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surestep import Trainer
from surestep.errors import ArgumentError
from tests.small import Points, quick


def trainer_of(folder: Path, **settings: Any) -> Trainer:
    """A trainer that scores by step: the second evaluation is the best, and the third as good."""

    def figures(prediction: Any) -> dict[str, float]:
        assert len(prediction.predictions) in {4, 9}, "an evaluation is of the samples of both ranks"
        return {"score": (0.0, 0.5, 0.9, 0.9)[trainer.state.global_step]}

    trainer = quick(
        folder,
        eval_strategy="steps",
        eval_steps=1,
        eval_dataset=Points(9),
        per_device_eval_batch_size=2,
        max_steps=3,
        compute_metrics=figures,
        **settings,
    )
    return trainer


def work(folder: Path) -> dict[str, Any]:
    """Train once with two metrics tracked, and once with a name that nothing gives."""
    saving = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 1}
    tracked = trainer_of(folder / "tracked", track_best=["score:max", "loss:max"], **saving)
    tracked.train()
    assert tracked._bests is not None
    found = {name: (best.value, best.step) for name, best in tracked._bests.by_name.items()}
    wrong = trainer_of(folder / "wrong", metric_for_best_model="f1")
    try:
        wrong.train()
    except ArgumentError as error:
        told = str(error)
    return {"found": found, "told": told, "steps": wrong.state.global_step}

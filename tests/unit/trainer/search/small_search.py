"""A trainer to search with, and the spaces that tests draw from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from tests.small import Line, Points, quick

from surestep import Trainer

optuna.logging.set_verbosity(optuna.logging.WARNING)


def searching(folder: Path, kind: type[Trainer] = Trainer, **settings: Any) -> Trainer:
    """Two epochs of 5 steps, evaluated after each."""
    parts = {"model_init": Line, "eval_dataset": Points(8, seed=3), "eval_strategy": "epoch", "num_train_epochs": 2}
    return quick(folder, kind, **{**parts, "learning_rate": 0.01, **settings})


def rates(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)}


def seeded(seed: int = 1) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)

"""What each process gets from a search of all of them, under the original and here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import transformers
from torch import nn

import surestep
from tests.small import Line, Points

optuna.logging.set_verbosity(optuna.logging.WARNING)


def searched(package: Any, folder: Path) -> dict[str, Any]:
    """Search one trial, which draws a rate in the space and a width in `model_init`."""
    drawn: list[bool] = []

    def make(trial: Any) -> nn.Module:
        if trial is not None:
            try:
                trial.suggest_int("width", 2, 2)
                drawn.append(True)
            except ValueError:
                drawn.append(False)
        return Line()

    settings = {"max_steps": 1, "use_cpu": True, "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    args = package.TrainingArguments(str(folder), **settings)
    trainer = package.Trainer(None, args, train_dataset=Points(), eval_dataset=Points(), model_init=make)
    best = trainer.hyperparameter_search(lambda trial: {"seed": trial.suggest_int("seed", 3, 3)}, n_trials=1)
    return {"best": None if best is None else best.hyperparameters, "drawn": drawn}


def work(folder: Path) -> dict[str, Any]:
    """Search with both."""
    return {"theirs": searched(transformers, folder / "theirs"), "ours": searched(surestep, folder / "ours")}

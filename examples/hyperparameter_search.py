"""Search for rate, dropout and width of a small network on handwritten digits.

Run it with: python examples/hyperparameter_search.py           (needs optuna and scikit-learn)
Stop it when you like: the same command goes on with the trials that are missing. Start it in several terminals: they
share the trials. Settings may be changed in the way of arguments, for example: --n_trials 40 --num_train_epochs 4
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset, random_split

from surestep import EvalPrediction, HfArgumentParser, Trainer, TrainingArguments

DEFAULTS = {
    "output_dir": "runs/digits_search",
    "num_train_epochs": 6,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 256,
    "lr_scheduler_type": "cosine",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "logging_steps": 1000,
    "disable_tqdm": True,
}


@dataclass
class SearchSettings:
    """How long to search."""

    n_trials: int = field(default=12, metadata={"help": "trials, those of earlier and of other processes included"})


class Digits(Dataset[dict[str, Tensor]]):
    """1,797 pictures of 8 x 8 pixels."""

    def __init__(self) -> None:
        pictures, digits = load_digits(return_X_y=True)
        self.pictures, self.digits = torch.tensor(pictures / 16.0, dtype=torch.float32), torch.tensor(digits)

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixels": self.pictures[index], "labels": self.digits[index]}


class Network(nn.Module):
    """Two layers."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10))

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layers(pixels)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def make_model(trial: optuna.Trial | None) -> Network:
    """Called anew for each trial, and with None before the first."""
    if trial is None:
        return Network(width=32, dropout=0.0)
    return Network(
        width=trial.suggest_categorical("width", [16, 64, 256]), dropout=trial.suggest_float("dropout", 0.0, 0.5)
    )


def space(trial: optuna.Trial) -> dict[str, Any]:
    """The arguments of a trial."""
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True)}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(prediction.predictions.argmax(axis=-1) == prediction.label_ids))}


def main(given: list[str]) -> Any:
    defaults = [f"--{name}={value}" for name, value in DEFAULTS.items()]
    arguments, search = HfArgumentParser((TrainingArguments, SearchSettings)).parse_args_into_dataclasses(
        defaults + given
    )
    train, validation = random_split(Digits(), [0.8, 0.2], torch.Generator().manual_seed(0))
    trainer = Trainer(
        args=arguments,
        model_init=make_model,
        train_dataset=train,
        eval_dataset=validation,
        compute_metrics=accuracy,
    )
    best = trainer.hyperparameter_search(
        space,
        direction="maximize",
        n_trials=search.n_trials,
        storage=Path(arguments.output_dir) / "study.db",
        study_name="digits",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    print(f"trial {best.run_id}: accuracy {best.objective:.4f} with {best.hyperparameters}")
    return best


if __name__ == "__main__":
    main(sys.argv[1:])

"""The default spaces: what is varied where nobody says what to vary. Names and bounds are the original's."""

from __future__ import annotations

from typing import Any

from surestep.optional import require

_BATCH_SIZES = [4, 8, 16, 32, 64]


def default_hp_space_optuna(trial: Any) -> dict[str, Any]:
    """Draw learning rate, epochs, seed and batch size from a trial of Optuna."""
    require("optuna", "default_hp_space_optuna")
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-4, log=True),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 1, 5),
        "seed": trial.suggest_int("seed", 1, 40),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", _BATCH_SIZES),
    }


def default_hp_space_ray(trial: Any) -> dict[str, Any]:
    """Return the distributions of the same four for Ray Tune; the seed is a whole number."""
    del trial
    tune = require("ray.tune", "default_hp_space_ray")
    return {
        "learning_rate": tune.loguniform(1e-6, 1e-4),
        "num_train_epochs": tune.choice(list(range(1, 6))),
        "seed": tune.randint(1, 41),
        "per_device_train_batch_size": tune.choice(_BATCH_SIZES),
    }


def default_hp_space_wandb(trial: Any) -> dict[str, Any]:
    """Return the configuration of a random sweep over the same four, with up to six epochs."""
    del trial
    require("wandb", "default_hp_space_wandb")
    return {
        "method": "random",
        "metric": {"name": "objective", "goal": "minimize"},
        "parameters": {
            "learning_rate": {"distribution": "uniform", "min": 1e-6, "max": 1e-4},
            "num_train_epochs": {"distribution": "int_uniform", "min": 1, "max": 6},
            "seed": {"distribution": "int_uniform", "min": 1, "max": 40},
            "per_device_train_batch_size": {"values": _BATCH_SIZES},
        },
    }

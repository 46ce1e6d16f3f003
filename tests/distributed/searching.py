"""Searches with Optuna on every rank: each trial is trained by all of them."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import Tensor, nn

from surestep import Trainer, TrainerCallback
from surestep.errors import ArgumentError, NotServedError, SearchError
from tests.small import Points, quick

optuna.logging.set_verbosity(optuna.logging.WARNING)
MODELS: list[weakref.ref[nn.Module]] = []


class Wide(nn.Module):
    """A line of numbers through a layer whose width a trial draws."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, width), nn.Linear(width, 1)
        self.double()
        MODELS.append(weakref.ref(self))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        prediction = self.outer(torch.tanh(self.inner(x.double())))
        return {"loss": nn.functional.mse_loss(prediction, labels.double()), "logits": prediction}


def wide(trial: Any) -> Wide:
    return Wide(2 if trial is None else trial.suggest_int("width", 2, 8))


def rates(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)}


class Notes(TrainerCallback):
    """Notes what every trial was told and how far it came; ends the search in the middle of one."""

    def __init__(self, *, interrupts: str = "") -> None:
        self.trials: list[dict[str, Any]] = []
        self.interrupts = interrupts

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        values = {"name": state.trial_name, "params": dict(state.trial_params), "rate": args.learning_rate}
        self.trials.append({**values, "began": state.global_step})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trials[-1]["steps"] = state.global_step
        if state.trial_name == self.interrupts and state.global_step == 7:
            self.interrupts = ""
            raise RuntimeError("the trial is cut off")


class Second(optuna.pruners.BasePruner):
    """Has no hope for the second trial."""

    def prune(self, study: Any, trial: Any) -> bool:
        return trial.number == 1


def searching(folder: Path, notes: Notes, **settings: Any) -> Trainer:
    """Two epochs of five steps with four samples each, on however many ranks."""
    parts = {"model_init": wide, "eval_dataset": Points(9), "callbacks": [notes], "num_train_epochs": 2}
    batch = 4 // int(os.environ["WORLD_SIZE"])
    return quick(folder, **{**parts, "eval_strategy": "epoch", "per_device_train_batch_size": batch, **settings})


def found(best: Any) -> dict[str, Any]:
    return {"id": best.run_id, "objective": best.objective, "params": best.hyperparameters}


def plain(folder: Path) -> dict[str, Any]:
    notes = Notes()
    trainer = searching(folder / "plain", notes)
    best = trainer.hyperparameter_search(rates, n_trials=3, sampler=optuna.samplers.RandomSampler(seed=1))
    gc.collect()
    alive = sum(model() is not None for model in MODELS)
    return {"best": found(best), "trials": notes.trials, "study": best.run_summary is not None, "alive": alive}


def pruned(folder: Path) -> dict[str, Any]:
    notes = Notes()
    states: list[str] = []
    best = searching(folder / "pruned", notes).hyperparameter_search(
        rates, n_trials=3, pruner=Second(), callbacks=[lambda study, trial: states.append(trial.state.name)]
    )
    return {"best": found(best), "steps": [trial["steps"] for trial in notes.trials], "states": states}


def own_ideas(folder: Path) -> list[float]:
    """Let every rank have another rate in mind, and another objective."""
    rank = int(os.environ["RANK"])
    notes = Notes()
    best = searching(folder / "own", notes, max_steps=1, eval_strategy="no").hyperparameter_search(
        lambda trial: {"learning_rate": 0.01 * (rank + 1)}, compute_objective=lambda metrics: 5.0 + rank, n_trials=1
    )
    return [notes.trials[0]["rate"], best.objective]


def objectives(folder: Path) -> list[dict[str, Any]]:
    """Search by two objectives, until time is up."""
    best = searching(folder / "two", Notes(), max_steps=2).hyperparameter_search(
        rates,
        compute_objective=lambda metrics: [metrics["eval_loss"], 1.0],
        direction=["minimize", "maximize"],
        n_trials=None,
        timeout=0.1,
    )
    return [found(one) for one in best]


def continued(folder: Path) -> dict[str, Any]:
    """Cut the second trial off after a checkpoint, and go on from a study in a file."""
    outcomes = {}
    for name, notes in {"whole": Notes(), "broken": Notes(interrupts="run-1")}.items():
        trainer = searching(folder / name, notes, save_strategy="steps", save_steps=3)
        study = {"storage": str(folder / name / "study.db"), "study_name": name, "load_if_exists": True}
        told = ""
        try:
            trainer.hyperparameter_search(rates, n_trials=2, sampler=optuna.samplers.RandomSampler(seed=2), **study)
        except RuntimeError as error:
            told = str(error)
        best = trainer.hyperparameter_search(rates, n_trials=2, **study)
        outcomes[name] = {"told": told, "best": found(best), "trials": notes.trials}
    return outcomes


def fails(folder: Path, kinds: Any = SearchError, **options: Any) -> list[str]:
    """Return the error of a search, and its message."""
    try:
        searching(folder, Notes(), max_steps=1, eval_strategy="no").hyperparameter_search(rates, n_trials=2, **options)
    except kinds as error:
        return [type(error).__name__, str(error)]
    return []


def tired(study: Any, trial: Any) -> None:
    raise SearchError("enough of it")


def lost(study: Any, trial: Any) -> None:
    raise OSError("the disk is gone")


def failing(folder: Path) -> dict[str, list[str]]:
    """What every rank hears of errors that one of them has, between trials."""
    kept = {"storage": str(folder / "kept.db"), "study_name": "kept"}
    fails(folder / "first", **kept)
    return {
        "taken": fails(folder / "taken", ArgumentError, **kept),
        "tired": fails(folder / "tired", callbacks=[tired]),
        "lost": fails(folder / "lost", (OSError, SearchError), callbacks=[lost]),
        "catch": fails(folder / "catch", NotServedError, catch=(RuntimeError,)),
    }


def work(folder: Path) -> dict[str, Any]:
    """Search in every way; what only several ranks can tell is left out on one."""
    outcome = {"plain": plain(folder), "pruned": pruned(folder), "continued": continued(folder)}
    if int(os.environ["WORLD_SIZE"]) > 1:
        outcome |= {"own": own_ideas(folder), "objectives": objectives(folder), "failing": failing(folder)}
    return outcome

"""A small study on both sides: the same values give the same objectives, prunings, folders and states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import transformers

import surestep
from tests.parity.harness import run
from tests.parity.models import Net, Points

BASE = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "eval_strategy": "epoch", "logging_steps": 2}
# An evaluation of one batch, whose loss does not depend on how batches are weighed.
WHOLE = {"per_device_eval_batch_size": 8}


def space(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [2, 4]),
        "weight_decay": trial.suggest_float("weight_decay", 0.0, 0.1),
    }


def search(side: Any, folder: Path, arguments: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
    """Run a search and return what it comes to, with the study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = {"hp_space": space, "n_trials": 4, "sampler": optuna.samplers.RandomSampler(seed=5), **options}
    found: list[Any] = []

    def drive(trainer: Any) -> Any:
        found.append(trainer.hyperparameter_search(backend="optuna", **options))
        # The harness looks at a trained model.
        return trainer.train()

    made = {"train": lambda: Points(16), "evaluate": lambda: Points(8), "model_init": lambda: Net(0.2)}
    storage = optuna.storages.InMemoryStorage()
    options |= {"storage": storage, "study_name": "study"}
    run(side, {**BASE, **WHOLE, **(arguments or {})}, folder=str(folder), drive=drive, **made)
    return found[0], optuna.load_study(study_name="study", storage=storage)


def both(tmp_path: Path, arguments: dict[str, Any] | None = None, **options: Any) -> list[tuple[Any, Any]]:
    made = [{key: value() if key == "pruner" else value for key, value in options.items()} for _ in range(2)]
    sides = (transformers, surestep)
    return [search(side, tmp_path / side.__name__, arguments, **one) for side, one in zip(sides, made, strict=True)]


def trials(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.state, trial.values, trial.params, trial.intermediate_values) for trial in study.trials
    ]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_trials_come_to_the_same(tmp_path: Path, direction: str) -> None:
    (theirs, one), (ours, other) = both(tmp_path, direction=direction)

    assert trials(one) == trials(other)
    assert len({value for _, _, (value,), _, _ in trials(one)}) == 4
    assert theirs[:3] == ours[:3]


def test_the_same_trials_are_pruned_at_the_same_steps(tmp_path: Path) -> None:
    (_, one), (_, other) = both(
        tmp_path,
        {"num_train_epochs": 3},
        n_trials=6,
        pruner=lambda: optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
    )

    assert {trial.state.name for trial in one.trials} == {"COMPLETE", "PRUNED"}
    assert trials(one) == trials(other)


def test_without_evaluation_during_training(tmp_path: Path) -> None:
    (_, one), (_, other) = both(tmp_path, {"eval_strategy": "no"})

    assert trials(one) == trials(other)


def test_several_objectives(tmp_path: Path) -> None:
    (theirs, one), (ours, other) = both(
        tmp_path,
        direction=["minimize", "maximize"],
        compute_objective=lambda metrics: [metrics["eval_loss"], -metrics["epoch"]],
    )

    assert trials(one) == trials(other)
    assert [best[:3] for best in theirs] == [best[:3] for best in ours]


@pytest.mark.parametrize("name", [None, lambda trial: f"trial-{trial.number}-of-4"], ids=["numbered", "named"])
def test_folders_and_states(tmp_path: Path, name: Any) -> None:
    both(tmp_path, {"save_strategy": "epoch", "save_total_limit": 1}, hp_name=name, n_trials=2)
    folders = [tmp_path / side.__name__ for side in (transformers, surestep)]
    found = [sorted(str(path.relative_to(folder)) for path in folder.glob("*/checkpoint-*")) for folder in folders]

    assert found[0] == found[1] != []
    for path in found[0]:
        one, other = (json.loads((folder / path / "trainer_state.json").read_text()) for folder in folders)
        for key in ("trial_params", "is_hyper_param_search", "global_step", "best_metric"):
            assert one[key] == other[key]
        assert other["trial_name"] == path.split("/")[0]
        assert one["trial_name"] == (None if name is None else other["trial_name"])

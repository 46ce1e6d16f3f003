"""What a search does otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import transformers

import surestep
from surestep.errors import ArgumentError
from surestep.logs import warn_once
from tests.parity.differences import shows
from tests.parity.models import Net, Points

both = pytest.mark.parametrize("side", [transformers, surestep])
BASE = {
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
    "save_strategy": "no",
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 8,
    "max_steps": 2,
}


def make() -> torch.nn.Module:
    return Net()


def first_weight(model: torch.nn.Module) -> float:
    return next(model.parameters()).flatten()[0].item()


def trainer_of(
    side: Any, folder: Path, arguments: dict[str, Any] | None = None, callbacks: Any = (), model_init: Any = make
) -> Any:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return side.Trainer(
        model_init=model_init,
        args=side.TrainingArguments(**{"output_dir": str(folder), **BASE, **(arguments or {})}),
        train_dataset=Points(16),
        eval_dataset=Points(8),
        callbacks=list(callbacks),
    )


def search(trainer: Any, space: Callable[[Any], Any], **options: Any) -> Any:
    return trainer.hyperparameter_search(space, backend="optuna", **{"n_trials": 2, **options})


def noting(side: Any, read: Callable[[Any, Any], Any]) -> tuple[Any, list[Any]]:
    """Return a callback that reads something at the beginning of each training, and what it has read."""
    seen: list[Any] = []

    def on_train_begin(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seen.append(read(args, state))

    return type("Notes", (side.TrainerCallback,), {"on_train_begin": on_train_begin})(), seen


@shows("H1")
@both
def test_the_seed_of_a_trial_is_that_of_its_model(tmp_path: Path, side: Any) -> None:
    weights: list[float] = []

    def make_and_note() -> torch.nn.Module:
        model = Net()
        weights.append(first_weight(model))
        return model

    search(trainer_of(side, tmp_path, model_init=make_and_note), lambda trial: {"seed": 11 + trial.number})
    expected = []
    for seed in (11, 12) if side is surestep else (42, 11):
        torch.manual_seed(seed)
        expected.append(first_weight(Net()))
    assert weights[1:] == expected


@shows("H2")
@both
def test_values_of_a_trial_end_with_it(tmp_path: Path, side: Any) -> None:
    notes, seen = noting(side, lambda args, state: args.weight_decay)
    trainer = trainer_of(side, tmp_path, callbacks=[notes])
    search(trainer, lambda trial: {"weight_decay": 0.5} if trial.number == 0 else {})

    assert [*seen, trainer.args.weight_decay] == ([0.5, 0.0, 0.0] if side is surestep else [0.5, 0.5, 0.5])


@shows("H3")
@both
def test_early_stopping_counts_each_trial_by_itself(tmp_path: Path, side: Any) -> None:
    stopping = side.EarlyStoppingCallback(early_stopping_patience=5)
    notes, counts = noting(side, lambda args, state: stopping.early_stopping_patience_counter)
    settings = {"metric_for_best_model": "loss", "lr_scheduler_type": "constant", "max_steps": 3}
    evaluating = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    best = {"load_best_model_at_end": True}
    trainer = trainer_of(side, tmp_path, {**settings, **evaluating, **best}, callbacks=[stopping, notes])
    # Far too fast: evaluations grow worse.
    search(trainer, lambda trial: {"learning_rate": 20.0})

    assert counts[0] == 0
    assert (counts[1] == 0) == (side is surestep)


@shows("H4")
def test_a_name_that_no_argument_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    search(trainer_of(transformers, tmp_path), lambda trial: {"learning_rte": 0.1}, n_trials=1)
    with pytest.raises(ArgumentError, match=r"learning_rte.*Did you mean learning_rate"):
        search(trainer_of(surestep, tmp_path), lambda trial: {"learning_rte": 0.1}, n_trials=1)
    with caplog.at_level(logging.WARNING):
        takes_trial = trainer_of(surestep, tmp_path, model_init=lambda trial: Net())
        search(takes_trial, lambda trial: {"width": 3}, n_trials=1)
    assert "'width', which only model_init reads" in caplog.text


@shows("H5")
def test_values_are_checked_and_not_cast(tmp_path: Path) -> None:
    theirs = trainer_of(transformers, tmp_path)
    search(theirs, lambda trial: {"dataloader_drop_last": "False", "warmup_steps": 0.5}, n_trials=1)
    assert (theirs.args.dataloader_drop_last, theirs.args.warmup_steps) == (True, 0)

    notes, seen = noting(surestep, lambda args, state: args.warmup_steps)
    ours = trainer_of(surestep, tmp_path, callbacks=[notes])
    search(ours, lambda trial: {"warmup_steps": 0.5}, n_trials=1)
    assert seen == [0.5]
    with pytest.raises(ArgumentError, match="dataloader_drop_last"):
        search(ours, lambda trial: {"dataloader_drop_last": "False"}, n_trials=1)


@shows("H6")
@both
def test_the_trials_of_a_study_are_counted_together(tmp_path: Path, side: Any) -> None:
    storage = optuna.storages.InMemoryStorage()
    shared = {"storage": storage, "study_name": "one", "load_if_exists": True}
    for _ in range(2):
        search(
            trainer_of(side, tmp_path),
            lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1)},
            **shared,
        )

    assert len(optuna.load_study(study_name="one", storage=storage).trials) == (2 if side is surestep else 4)


@shows("H7")
def test_threads_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        # Not run: two threads that train one model may hang.
        patch.setattr(optuna.study.Study, "optimize", lambda self, objective, **options: asked.append(options))
        with pytest.raises(ValueError, match="No trials are completed yet"):
            search(trainer_of(transformers, tmp_path), lambda trial: {}, n_jobs=2)
    assert [options["n_jobs"] for options in asked] == [2]

    with pytest.raises(ArgumentError, match="n_jobs is 2, which means threads"):
        search(trainer_of(surestep, tmp_path), lambda trial: {}, n_jobs=2)


@shows("H8")
def test_only_figures_of_the_model_are_compared() -> None:
    metrics = {"eval_loss": 0.5, "num_input_tokens_seen": 1000, "eval_mem_cpu_alloc_delta": 4096}

    assert transformers.trainer_utils.default_compute_objective(metrics) == 5096
    assert surestep.default_compute_objective(metrics) == 0.5


@shows("H9")
@both
def test_trials_have_names(tmp_path: Path, side: Any) -> None:
    notes, names = noting(side, lambda args, state: state.trial_name)
    search(trainer_of(side, tmp_path, callbacks=[notes]), lambda trial: {})

    assert names == (["run-0", "run-1"] if side is surestep else [None, None])


@shows("H10")
@both
def test_a_batch_size_that_is_set_is_used(tmp_path: Path, side: Any) -> None:
    trainer = trainer_of(side, tmp_path, {"max_steps": -1, "num_train_epochs": 1})
    trainer.args.per_device_train_batch_size = 8
    trainer.train()

    # 16 samples.
    assert trainer.state.max_steps == (2 if side is surestep else 4)

"""Optuna behind the door: pruning, several objectives, failures, and options that cannot be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from tests.unit.trainer.search.small_search import rates, searching, seeded

from surestep import Trainer, TrainerCallback
from surestep.errors import ArgumentError, SearchError, UnknownArgumentError


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


# Pruning


class Ends(TrainerCallback):
    """Notes at which step each trial ended, and whether it was told so."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)


def test_a_trial_without_hope_is_pruned_after_an_evaluation(tmp_path: Path) -> None:
    ends = Ends()
    trainer = searching(tmp_path, callbacks=[ends], num_train_epochs=3, lr_scheduler_type="constant")
    # The first learns, the second does not.
    best = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": [0.05, 1e-6][trial.number]},
        n_trials=2,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=1),
    )
    first, second = best.run_summary.trials

    assert best.run_id == "0"
    assert states(best.run_summary) == ["COMPLETE", "PRUNED"]
    assert list(first.intermediate_values) == [5, 10, 15]
    assert first.value == first.intermediate_values[15]
    # Pruned at the first evaluation, with what it had come to; callbacks were told.
    assert list(second.intermediate_values) == [5]
    assert second.value == second.intermediate_values[5]
    assert ends.steps == [15, 5]


def test_two_evaluations_at_one_step_are_one_report(tmp_path: Path) -> None:
    class Asks(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_evaluate = True

    trainer = searching(tmp_path, callbacks=[Asks()], eval_strategy="steps", eval_steps=5, num_train_epochs=1)
    best = trainer.hyperparameter_search(rates, n_trials=1)

    assert list(best.run_summary.trials[0].intermediate_values) == [5]


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"eval_strategy": "no"}, {}, r'pruner is given, and eval_strategy is "no"'),
        ({}, {"direction": ["minimize", "minimize"]}, "Optuna prunes by one objective only"),
    ],
)
def test_a_pruner_that_could_never_prune_is_refused(
    tmp_path: Path, settings: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        searching(tmp_path, **settings).hyperparameter_search(rates, pruner=optuna.pruners.MedianPruner(), **options)


# Several objectives


def test_several_objectives_come_to_those_that_none_beats(tmp_path: Path) -> None:
    trainer = searching(tmp_path, num_train_epochs=1)
    # What makes the first better makes the second worse, but for the last trial, which is worse in both.
    pairs = [[1.0, 1.0], [2.0, 3.0], [2.5, 0.5]]
    number = iter(range(3))
    best = trainer.hyperparameter_search(
        rates,
        lambda metrics: pairs[next(number)],
        n_trials=3,
        direction=["minimize", "maximize"],
    )

    assert [(run.run_id, run.objective) for run in best] == [("0", [1.0, 1.0]), ("1", [2.0, 3.0])]
    assert all(run.hyperparameters.keys() == {"learning_rate"} for run in best)


def test_a_list_of_one_direction_comes_to_a_list(tmp_path: Path) -> None:
    trainer = searching(tmp_path, num_train_epochs=1)
    best = trainer.hyperparameter_search(rates, lambda m: [m["eval_loss"]], n_trials=1, direction=["minimize"])

    assert [run.run_id for run in best] == ["0"]


@pytest.mark.parametrize(("direction", "best"), [("minimize", "1"), ("maximize", "2")])
def test_the_best_is_by_the_direction(tmp_path: Path, direction: str, best: str) -> None:
    values = iter([2.0, 1.0, 3.0])
    trainer = searching(tmp_path, num_train_epochs=1)
    run = trainer.hyperparameter_search(rates, lambda metrics: next(values), n_trials=3, direction=direction)

    assert run.run_id == best


# Failures


class Fails(Trainer):
    """Fails in its second trial."""

    def training_step(self, *positional: Any, **named: Any) -> Any:
        if self.state.trial_name == "run-1":
            raise RuntimeError("the second trial fails")
        return super().training_step(*positional, **named)


def test_a_trial_that_fails_ends_the_search(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the second trial fails"):
        searching(tmp_path, Fails).hyperparameter_search(rates, n_trials=3)


def test_failures_of_a_kind_that_is_caught_are_trials_like_others(tmp_path: Path) -> None:
    best = searching(tmp_path, Fails).hyperparameter_search(rates, n_trials=3, catch=RuntimeError, gc_after_trial=True)

    assert states(best.run_summary) == ["COMPLETE", "FAIL", "COMPLETE"]


def test_an_objective_that_is_not_a_number_fails_its_trial(tmp_path: Path) -> None:
    values = iter([float("nan"), 1.0])
    trainer = searching(tmp_path, num_train_epochs=1)
    best = trainer.hyperparameter_search(rates, lambda metrics: next(values), n_trials=2)

    assert states(best.run_summary) == ["FAIL", "COMPLETE"]
    assert best.run_id == "1"


def test_a_search_of_which_nothing_was_completed_says_what_became_of_it(tmp_path: Path) -> None:
    trainer = searching(tmp_path)
    with pytest.raises(SearchError, match=r"No trial of the search was completed: 2 pruned"):
        trainer.hyperparameter_search(rates, n_trials=2, pruner=optuna.pruners.ThresholdPruner(upper=-1.0))


def test_time_ends_a_search_between_two_trials(tmp_path: Path) -> None:
    trainer = searching(tmp_path)
    best = trainer.hyperparameter_search(rates, n_trials=None, timeout=0.01)

    assert states(best.run_summary) == ["COMPLETE"]


# Options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_jobs": 2}, ArgumentError, "n_jobs is 2, which means threads.*several processes with the same storage"),
        ({"n_jobs": -1}, ArgumentError, "n_jobs is -1"),
        ({"n_trials": None}, ArgumentError, "n_trials and timeout are both None"),
        ({"prunner": None}, UnknownArgumentError, "takes no 'prunner'. Did you mean 'pruner'"),
        ({"directions": ["minimize"]}, UnknownArgumentError, "takes no 'directions'.*It takes storage, sampler"),
        ({"load_if_exists": True}, ArgumentError, "load_if_exists=True needs a study"),
        ({"load_if_exists": True, "storage": "s.db"}, ArgumentError, "and study_name"),
        ({"storage": "study.txt"}, ArgumentError, r"storage is 'study.txt'. Write a path that ends in .db or"),
    ],
    ids=str,
)
def test_options_that_cannot_be_right(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        searching(tmp_path).hyperparameter_search(rates, **options)


def test_optuna_calls_callbacks_of_the_user(tmp_path: Path) -> None:
    seen: list[int] = []
    trainer = searching(tmp_path)
    trainer.hyperparameter_search(
        rates, n_trials=2, callbacks=[lambda study, trial: seen.append(trial.number)], sampler=seeded()
    )

    assert seen == [0, 1]

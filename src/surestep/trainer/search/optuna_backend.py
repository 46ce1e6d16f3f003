"""Searching with Optuna: a study in memory or on disk, pruning, several processes, and going on after a crash."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from surestep.config.nearest import did_you_mean
from surestep.errors import ArgumentError, SearchError, UnknownArgumentError
from surestep.optional import require
from surestep.trainer.search.backend import HyperParamSearchBackend
from surestep.trainer.search.best import BestRun
from surestep.trainer.search.space import default_hp_space_optuna

if TYPE_CHECKING:
    from surestep.trainer.search.optuna_study import Studies
    from surestep.trainer.search.search import Search

# Set by the arguments of `hyperparameter_search` themselves.
_OURS = {"direction", "directions", "func", "n_trials", "self"}


class OptunaBackend(HyperParamSearchBackend):
    """Takes the keywords of `optuna.create_study` and of `Study.optimize`, and a path as `storage`."""

    name = "optuna"
    pip_package = "optuna"
    needs = ("optuna",)

    def __init__(self) -> None:
        self._studies: Studies | None = None
        self._reported: tuple[int, int] | None = None

    def default_hp_space(self, trial: Any) -> dict[str, Any]:
        """Draw learning rate, epochs, seed and batch size."""
        return default_hp_space_optuna(trial)

    def run(self, search: Search, n_trials: int | None, **options: Any) -> BestRun | list[BestRun]:
        """Run the trials that are missing. With `load_if_exists=True`, `n_trials` counts those of all processes."""
        from surestep.trainer.search.optuna_study import Studies

        optuna = require("optuna", 'hyperparameter_search(backend="optuna")')
        making = _parameters(optuna.create_study)
        running = _parameters(optuna.study.Study.optimize)
        _check_options(search, n_trials, options, [*making, *running])
        studies = self._studies = Studies.open(search, {key: options[key] for key in options if key in making})
        left = studies.trials_left(n_trials)
        if left != 0:
            settings = {key: options[key] for key in options if key in running}
            settings["callbacks"] = [*(settings.get("callbacks") or ()), studies.stop_at(n_trials)]
            studies.study.optimize(self._objective(search, options.get("catch", ())), n_trials=left, **settings)
        return _best(studies.study, several=search.several)

    def _objective(self, search: Search, catch: Any) -> Callable[[Any], Any]:
        studies = self._studies
        assert studies is not None

        def objective(trial: Any) -> float | list[float]:
            with studies.keeping(trial, catch):
                return search.run_trial(trial, studies.checkpoint_of(trial))

        return objective

    def settings(self, trial: Any, hp_space: Callable[[Any], Any]) -> Any:
        """Draw the arguments of a trial."""
        return hp_space(trial)

    def started(self, search: Search, trial: Any) -> None:
        """Note where the trial works, for whoever finds it cut off."""
        if self._studies is not None and hasattr(trial, "study"):
            self._studies.note(trial, search.folder(trial))

    def trial_id(self, trial: Any) -> str:
        """Return the number of the trial."""
        return str(trial.number)

    def params(self, trial: Any) -> dict[str, Any]:
        """Return what was drawn."""
        return dict(trial.params)

    def report(self, search: Search, trial: Any, step: int, metrics: dict[str, float]) -> None:
        """Report the objective and stop a trial that the pruner has no hope for.

        Of two evaluations at one step the first counts; several objectives are not pruned, as in the original.
        """
        del metrics
        if search.several or not hasattr(trial, "study") or self._reported == (trial.number, step):
            return
        self._reported = trial.number, step
        trial.report(search.objective, step)
        if trial.should_prune():
            optuna = require("optuna", 'hyperparameter_search(backend="optuna")')
            search.trainer.callback_handler.fire("on_train_end")
            raise optuna.TrialPruned(f"Pruned at step {step} with an objective of {search.objective}.")


def _parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in _OURS]


def _check_options(search: Search, n_trials: int | None, options: dict[str, Any], known: list[str]) -> None:
    for name in options:
        if name not in known:
            raise UnknownArgumentError(
                f"hyperparameter_search with Optuna takes no '{name}'.{did_you_mean(name, known)} It takes "
                f"{', '.join(known)}."
            )
    if options.get("n_jobs", 1) != 1:
        raise ArgumentError(
            f"n_jobs is {options['n_jobs']}, which means threads, and all of them would train one trainer's model with "
            "one set of random generators. Start several processes with the same storage, study_name and "
            "load_if_exists=True: they share the trials."
        )
    if n_trials is None and options.get("timeout") is None:
        raise ArgumentError("n_trials and timeout are both None: the search would never end. Give one of them.")
    if options.get("pruner") is not None:
        _check_pruner(search)


def _check_pruner(search: Search) -> None:
    if search.several:
        raise ArgumentError("pruner is given, and there are several directions: Optuna prunes by one objective only.")
    if search.trainer.args.eval_strategy == "no":
        raise ArgumentError(
            'pruner is given, and eval_strategy is "no": no trial would report anything before its end. Write '
            'eval_strategy="epoch" or "steps".'
        )


def _best(study: Any, *, several: bool) -> BestRun | list[BestRun]:
    if several:
        return [BestRun(str(one.number), list(one.values), one.params, study) for one in study.best_trials]
    states = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    if "complete" not in states:
        counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "none was run"
        raise SearchError(
            f"No trial of the search was completed: {counted}. The study keeps what became of each "
            "(storage=..., then optuna.load_study); a longer timeout, a milder pruner or another space may help."
        )
    best = study.best_trial
    return BestRun(str(best.number), best.value, best.params, study)

"""Searching with Optuna: a study in memory or on disk, pruning, several processes, and going on after a crash.

On several ranks of one run, `optuna_ranks` has what they tell each other; here is what the main process, or the only
one, does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.config.nearest import did_you_mean
from surestep.errors import ArgumentError, NotServedError, SearchError, UnknownArgumentError
from surestep.optional import require
from surestep.runtime.collectives import on_main
from surestep.trainer.search.backend import HyperParamSearchBackend
from surestep.trainer.search.best import BestRun
from surestep.trainer.search.space import default_hp_space_optuna

if TYPE_CHECKING:
    from surestep.trainer.search.optuna_ranks import Lead
    from surestep.trainer.search.optuna_study import Studies
    from surestep.trainer.search.search import Search

_PURPOSE = 'hyperparameter_search(backend="optuna")'
# Set by the arguments of `hyperparameter_search` themselves.
_OURS = {"direction", "directions", "func", "n_trials", "self"}


class OptunaBackend(HyperParamSearchBackend):
    """Takes the keywords of `optuna.create_study` and of `Study.optimize`, and a path as `storage`."""

    name = "optuna"
    pip_package = "optuna"
    needs = ("optuna",)
    over_ranks = True

    def __init__(self) -> None:
        self._studies: Studies | None = None
        self._reported: tuple[int, int] | None = None

    def default_hp_space(self, trial: Any) -> dict[str, Any]:
        """Draw learning rate, epochs, seed and batch size."""
        return default_hp_space_optuna(trial)

    def run(self, search: Search, n_trials: int | None, **options: Any) -> BestRun | list[BestRun]:
        """Run the trials that are missing. With `load_if_exists=True`, `n_trials` counts those of all processes."""
        from surestep.trainer.search.optuna_ranks import follow, lead

        optuna = require("optuna", _PURPOSE)
        making = {key: options[key] for key in _parameters(optuna.create_study) if key in options}
        running = {key: options[key] for key in _parameters(optuna.study.Study.optimize) if key in options}
        _check_options(search, n_trials, options)
        if not search.world.is_main:
            return follow(search)
        return lead(search.world, lambda leader: self._optimize(search, leader, n_trials, making, running))

    def _optimize(
        self, search: Search, leader: Lead, n_trials: int | None, making: dict[str, Any], running: dict[str, Any]
    ) -> BestRun | list[BestRun]:
        """Open the study, which takes the options of `making`, run what is left of it with those of `running`."""
        from surestep.trainer.search.optuna_study import Studies

        studies = self._studies = Studies.open(search, making)
        left = studies.trials_left(n_trials)
        if left != 0:
            callbacks = [*(running.pop("callbacks", None) or ()), studies.stop_at(n_trials)]
            objective = self._objective(search, leader, running.get("catch", ()))
            studies.study.optimize(objective, n_trials=left, callbacks=callbacks, **running)
        return _best(studies.study, several=search.several)

    def _objective(self, search: Search, leader: Lead, catch: Any) -> Callable[[Any], Any]:
        studies = self._studies
        assert studies is not None

        def objective(trial: Any) -> float | list[float]:
            checkpoint = studies.checkpoint_of(trial)
            with studies.keeping(trial, catch), leader.trial(trial, checkpoint) as shared:
                return search.run_trial(shared, checkpoint)

        return objective

    def settings(self, trial: Any, hp_space: Callable[[Any], Any]) -> Any:
        """Draw the arguments of a trial."""
        return hp_space(trial)

    def started(self, search: Search, trial: Any) -> None:
        """Note where the trial works, for whoever finds it cut off."""
        on_main(search.world, lambda: self._note(_of_the_study(trial), search.folder(trial)))

    def _note(self, trial: Any, folder: Path) -> None:
        if self._studies is not None and hasattr(trial, "study"):
            self._studies.note(trial, folder)

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
        if search.several or self._reported == (trial.number, step):
            return
        self._reported = trial.number, step
        if on_main(search.world, lambda: _is_hopeless(_of_the_study(trial), search.objective, step)):
            optuna = require("optuna", _PURPOSE)
            search.trainer.callback_handler.fire("on_train_end")
            raise optuna.TrialPruned(f"Pruned at step {step} with an objective of {search.objective}.")


def _of_the_study(trial: Any) -> Any:
    """Return the trial that the study knows, of one that several processes share."""
    return getattr(trial, "leading", trial)


def _is_hopeless(trial: Any, objective: Any, step: int) -> bool:
    """Report the objective, and say whether the pruner wants the trial to end."""
    if not hasattr(trial, "study"):
        return False
    trial.report(objective, step)
    return bool(trial.should_prune())


def _parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in _OURS]


def _check_options(search: Search, n_trials: int | None, options: dict[str, Any]) -> None:
    optuna = require("optuna", _PURPOSE)
    known = [*_parameters(optuna.create_study), *_parameters(optuna.study.Study.optimize)]
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
    if search.world.size > 1 and options.get("catch"):
        raise NotServedError(
            f"catch is given, and {search.world.size} processes train each trial: where one of them fails the others "
            "wait for it, so that the trial cannot end alone. Leave catch out, or start several searches of one "
            "process each on one storage."
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

"""The search of a job: trials of one trainer below the run's folder, in a study that goes on after a restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from surestep import Trainer, TrainerCallback, TrainerControl, TrainerState
from surestep.errors import ArgumentError, JobError, ModelError, NonFiniteError, SearchError
from surestep.jobs.arguments import evaluates
from surestep.jobs.assemble import Assembly
from surestep.jobs.bounds import SEARCHING, is_whole
from surestep.jobs.job import Job
from surestep.jobs.space import MODEL, Choices, Range, Value, values_shown
from surestep.optional import require
from surestep.trainer.search.optuna_study import CUT_OFF

# What the values of a trial may bring about: the trial has failed, and the search goes on.
_OF_THE_VALUES = (ArgumentError, JobError, ModelError, NonFiniteError, torch.OutOfMemoryError)


@dataclass(frozen=True)
class Found:
    """The values of the best trial, the folder it trained in, and what there is to report of the whole search."""

    values: dict[str, Value]
    folder: Path
    report: dict[str, Any]


class _Progress(TrainerCallback):
    """Says which trial begins and what it came to."""

    def __init__(self, job: Job, say: Callable[[str], None]) -> None:
        self._job, self._say = job, say

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say which trial begins, and with what."""
        del args, control, kwargs
        since = f", going on from step {state.global_step:,}" if state.global_step else ""
        self._say(f"{state.trial_name}: {values_shown(state.trial_params or {})}{since}.")

    def ended(self, study: Any, trial: Any) -> None:
        """Say what a trial came to."""
        metric, states = self._job.search_metric, [one.state.name for one in study.get_trials(deepcopy=False)]
        said = f"{metric} {trial.value:.4f}" if trial.state.name == "COMPLETE" else trial.state.name.lower()
        if "COMPLETE" in states:
            said += f"; the best so far is run-{study.best_trial.number} with {study.best_value:.4f}"
        self._say(f"run-{trial.number}: {said}.")


def search(assembly: Assembly, folder: Path, say: Callable[[str], None]) -> Found:
    """Run the trials that are missing, in `folder`, and return the best of all.

    Raises:
        Interrupted: a signal came; the study keeps that its last trial is to be gone on with.
    """
    optuna, settings, job = require("optuna", SEARCHING), assembly.job.search, assembly.job
    assert settings is not None
    progress = _Progress(job, say)
    trials = _Trials(assembly, folder)
    trainer = trials.trainer([progress])
    options: dict[str, Any] = {"pruner": _pruner(optuna, assembly)} if evaluates(assembly.arguments) else {}
    before = optuna.logging.get_verbosity()
    # Of trials, this speaks by itself; of failures, Optuna does.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        best: Any = trainer.hyperparameter_search(
            trials.draw,
            compute_objective=trials.objective,
            n_trials=settings.n_trials,
            timeout=settings.timeout,
            direction=job.search_direction,
            backend=settings.backend,
            storage=trials.storage,
            study_name=job.name,
            load_if_exists=True,
            sampler=_sampler(optuna, settings.sampler, settings.seed),
            catch=_OF_THE_VALUES,
            callbacks=[progress.ended],
            **options,
        )
    finally:
        optuna.logging.set_verbosity(before)
    return Found(best.hyperparameters, folder / f"run-{best.run_id}", _report(job, best))


class _Trials:
    """Draws the values of trials and makes of them what a trainer asks for."""

    def __init__(self, assembly: Assembly, folder: Path) -> None:
        self._assembly, self._folder = assembly, folder
        self._trainer: Trainer | None = None

    @property
    def storage(self) -> str:
        """Where the study is kept."""
        assert self._assembly.job.search is not None
        storage = self._assembly.job.search.storage or str(self._folder / "study.db")
        if "://" not in storage and not Path(storage).exists() and any(self._folder.glob("run-*")):
            raise JobError(
                f"'{self._folder}' holds trials, and their study '{storage}' is gone. Put it back, or give --fresh to "
                "move the folder aside and start anew."
            )
        return storage

    def trainer(self, callbacks: list[TrainerCallback]) -> Trainer:
        """Return the trainer of all trials."""
        within = self._assembly.with_values({}, self._folder)
        self._trainer = within.trainer(callbacks, model_init=self.model)
        return self._trainer

    def draw(self, trial: Any) -> dict[str, Any]:
        """Draw everything that is varied; return the arguments among it."""
        job = self._assembly.job
        assert job.search is not None
        drawn = {name: _draw(trial, name, within, is_whole(job, name)) for name, within in job.search.varied()}
        return {name: value for name, value in drawn.items() if not name.startswith(MODEL)}

    def model(self, trial: Any) -> torch.nn.Module:
        """Build the model of a trial; before the first, one as it is declared."""
        values = {} if trial is None else trial.params
        return self._assembly.model_of(values)

    def objective(self, metrics: Mapping[str, float]) -> float:
        """Return what a trial has come to: its last evaluation, or its best where that is what is kept."""
        job, value = self._assembly.job, metrics[f"eval_{self._assembly.job.search_metric}"]
        assert self._trainer is not None
        args, best = self._trainer.args, self._trainer.state.best_metric
        kept = str(args.metric_for_best_model).removeprefix("eval_") == job.search_metric
        if not args.load_best_model_at_end or not kept or best is None:
            return value
        return min(value, best) if job.search_direction == "minimize" else max(value, best)


def _draw(trial: Any, name: str, within: Range | Choices, whole: bool) -> Value:
    if isinstance(within, Choices):
        return _choose(trial, name, within.choices)
    if whole or within.is_whole:
        return int(trial.suggest_int(name, within.low, within.high, log=within.log, step=within.step or 1))
    return float(trial.suggest_float(name, within.low, within.high, log=within.log, step=within.step))


def _choose(trial: Any, name: str, choices: list[Value]) -> Value:
    try:
        chosen: Value = trial.suggest_categorical(name, choices)
    except ValueError as error:
        raise SearchError(
            f"The study has trials that chose {name} among others than {', '.join(map(str, choices))}. Write the same "
            "choices, or give --fresh to begin a new study."
        ) from error
    return chosen


def _sampler(optuna: Any, name: str, seed: int | None) -> Any:
    kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    return kinds[name](seed=seed)


def _pruner(optuna: Any, assembly: Assembly) -> Any:
    kinds = {
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    assert assembly.job.search is not None
    return kinds[assembly.job.search.pruner]()


def _report(job: Job, best: Any) -> dict[str, Any]:
    """Return what is kept of a search, the best trials first, those without a result last.

    Trials that were cut off are left out: others went on with them.
    """
    trials = [
        {"trial": f"run-{one.number}", "state": one.state.name.lower(), "objective": one.value, "values": one.params}
        for one in best.run_summary.get_trials(deepcopy=False)
        if CUT_OFF not in one.user_attrs
    ]
    sign = 1 if job.search_direction == "minimize" else -1
    trials.sort(key=lambda one: (one["state"] != "complete", sign * (one["objective"] or 0.0)))
    best_name = f"run-{best.run_id}"
    return {"metric": job.search_metric, "direction": job.search_direction, "best": best_name, "trials": trials}

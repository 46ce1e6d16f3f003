"""Searching with a sweep of Weights & Biases: the server draws the values, an agent in this process trains."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from surestep.config.nearest import did_you_mean
from surestep.errors import ArgumentError, SearchError, UnknownArgumentError
from surestep.logs import get_logger
from surestep.optional import require
from surestep.trainer.search.backend import HyperParamSearchBackend
from surestep.trainer.search.best import BestRun
from surestep.trainer.search.space import default_hp_space_wandb

if TYPE_CHECKING:
    from surestep.trainer.search.search import Search

_logger = get_logger(__name__)
_PURPOSE = 'hyperparameter_search(backend="wandb")'
_OPTIONS = ("sweep_id", "project", "entity", "name", "metric")


class WandbBackend(HyperParamSearchBackend):
    """Takes `sweep_id` to join a sweep, or `project`, `entity` and `name` of a new one; `metric` is what it watches."""

    name = "wandb"
    pip_package = "wandb"
    needs = ("wandb",)

    def __init__(self) -> None:
        self._best: BestRun | None = None

    def default_hp_space(self, trial: Any) -> dict[str, Any]:
        """Return the configuration of a random sweep over learning rate, epochs, seed and batch size."""
        return default_hp_space_wandb(trial)

    def run(self, search: Search, n_trials: int | None, **options: Any) -> BestRun:
        """Run an agent for `n_trials` trials and return the best of them; `run_summary` is the id of the sweep."""
        wandb = require("wandb", _PURPOSE)
        _check(search, options)
        metric = options.get("metric") or "eval/loss"
        sweep = options.get("sweep_id") or _new_sweep(wandb, search, metric, options)
        _logger.warning("The sweep is %s.", sweep)
        _add_callback(search)
        failed: list[BaseException] = []

        def trial() -> None:
            try:
                self.run_trial(search, metric)
            except BaseException as error:
                # The agent logs what a trial raises and goes on; a search of ours ends with it.
                failed.append(error)
                raise

        place = {name: options[name] for name in ("project", "entity") if options.get(name)}
        wandb.agent(sweep, function=trial, count=n_trials, **place)
        if failed:
            raise failed[0]
        if self._best is None:
            raise SearchError(f"No trial of the sweep {sweep} was run here: the server gave none.")
        return self._best._replace(run_summary=sweep)

    def run_trial(self, search: Search, metric: str) -> float:
        """Run one trial in the run of W&B that is open, or in a new one, with the values of its configuration."""
        wandb = require("wandb", _PURPOSE)
        run = wandb.run or wandb.init()
        run.config.update({"assignments": {}, "metric": metric}, allow_val_change=True)
        values = {name: value for name, value in run.config.items() if name not in ("assignments", "metric")}
        try:
            objective = cast("float", search.run_trial(values))
        finally:
            _leave_run(search)
        if self._best is None or _better(objective, cast("float", self._best.objective), search.directions[0]):
            self._best = BestRun(run.id, objective, values)
        return objective

    def trial_id(self, trial: Any) -> str:
        """Return the id of the run that is open."""
        del trial
        return str(require("wandb", _PURPOSE).run.id)

    def params(self, trial: Any) -> dict[str, Any]:
        """Return what the sweep drew."""
        return dict(trial)

    def report(self, search: Search, trial: Any, step: int, metrics: dict[str, float]) -> None:
        """Do nothing: the tracker's callback logs every evaluation to the run."""
        del search, trial, step, metrics


def _check(search: Search, options: dict[str, Any]) -> None:
    if search.several:
        raise ArgumentError(
            f"direction is {list(search.directions)}, and this backend compares trials by one objective. Give one "
            'direction, or use backend="optuna".'
        )
    for name in options:
        if name not in _OPTIONS:
            raise UnknownArgumentError(
                f"hyperparameter_search with W&B takes no '{name}'.{did_you_mean(name, _OPTIONS)} It takes "
                f"{', '.join(_OPTIONS)}."
            )
    mode = os.environ.get("WANDB_MODE", "online").lower()
    if mode in {"disabled", "dryrun"}:
        raise ArgumentError(
            f"WANDB_MODE is '{mode}', and the values of a sweep are drawn by the W&B server. Unset it, or use "
            'backend="optuna", which needs no server.'
        )
    if mode == "offline":
        _logger.warning(
            "WANDB_MODE is 'offline': the server draws the values of the sweep and hears nothing of what comes of "
            'them, as it has to with the method "bayes" or early termination.'
        )


def _new_sweep(wandb: Any, search: Search, metric: str, options: dict[str, Any]) -> str:
    config = search.hp_space(None)
    if not isinstance(config, dict) or "parameters" not in config:
        raise ArgumentError(
            f"hp_space returned {config!r}. For W&B return a sweep's configuration: "
            '{"method": "random", "parameters": {"learning_rate": {"min": 1e-5, "max": 1e-3}}}.'
        )
    config = {**config, "metric": {"name": metric, "goal": search.directions[0]}}
    if options.get("name"):
        config["name"] = options["name"]
    try:
        return str(wandb.sweep(config, project=options.get("project"), entity=options.get("entity")))
    except wandb.errors.Error as error:
        raise SearchError(
            f"No sweep could be made: {error} The values of a sweep are drawn by the W&B server: log in to one that "
            'can be reached, or use backend="optuna", which needs no server.'
        ) from error


def _add_callback(search: Search) -> None:
    """Add the tracker's callback where it is not there, so that the server sees what trials come to."""
    from surestep.callbacks.trackers.registry import tracker_callbacks

    handler = search.trainer.callback_handler
    for kind in tracker_callbacks(["wandb"]):
        if not any(isinstance(known, kind) for known in handler.callbacks):
            handler.add_callback(kind)


def _leave_run(search: Search) -> None:
    """Let the tracker's callbacks go of the run of a trial, which the agent ends."""
    from surestep.callbacks.trackers.tracker import Tracker

    for callback in search.trainer.callback_handler.callbacks:
        if isinstance(callback, Tracker) and callback.name == "wandb":
            callback.leave_run()


def _better(objective: float, best: float, direction: str) -> bool:
    return objective < best if direction == "minimize" else objective > best

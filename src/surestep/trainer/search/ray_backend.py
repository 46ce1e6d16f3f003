"""Searching with Ray Tune: each trial in a process of its own, which gets a copy of the trainer."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.errors import ArgumentError, SearchError
from surestep.logs import get_logger
from surestep.metrics.memory import TrainerMemoryTracker
from surestep.optional import require
from surestep.trainer.search.backend import HyperParamSearchBackend
from surestep.trainer.search.best import BestRun
from surestep.trainer.search.memory import release_memory
from surestep.trainer.search.space import default_hp_space_ray
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from surestep.trainer.search.search import Search

_logger = get_logger(__name__)
_PURPOSE = 'hyperparameter_search(backend="ray")'
# Schedulers that decide by what trials report on their way.
_NEED_REPORTS = ("AsyncHyperBandScheduler", "MedianStoppingRule", "HyperBandForBOHB", "PopulationBasedTraining")


class RayTuneBackend(HyperParamSearchBackend):
    """Takes the keywords of `ray.tune.run`; `RAY_SCOPE` (default "last") says which of a trial's reports count."""

    name = "ray"
    pip_package = "'ray[tune]'"
    # What `ray[tune]` installs and `ray` alone does not.
    needs = ("ray", "tensorboardX")

    def __init__(self) -> None:
        self._output_dir: str | None = None

    def default_hp_space(self, trial: Any) -> dict[str, Any]:
        """Return the distributions of learning rate, epochs, seed and batch size."""
        return default_hp_space_ray(trial)

    def run(self, search: Search, n_trials: int | None, **options: Any) -> BestRun:
        """Run the trials in Ray's processes and return the best; `run_summary` is Ray's analysis."""
        tune = require("ray.tune", _PURPOSE)
        direction = _one_direction(search)
        if n_trials is None:
            raise ArgumentError("n_trials is None. Ray Tune needs the number of trials; time_budget_s limits the time.")
        space = search.hp_space(None)
        if not isinstance(space, Mapping):
            raise ArgumentError(
                f"hp_space returned {space!r}. For Ray Tune return a dict of distributions, such as "
                '{"learning_rate": tune.loguniform(1e-5, 1e-3)}.'
            )
        _check_scheduler(search, options.get("scheduler"))
        # Ray's processes work in folders of their own, from where a relative path leads elsewhere.
        self._output_dir = str(search.trainer._output_folder.absolute())
        options.setdefault("resources_per_trial", _resources(search.trainer.args))
        options.setdefault("progress_reporter", tune.CLIReporter(metric_columns=["objective"]))
        trainable = tune.with_parameters(run_trial, search=_made_portable(search))
        analysis = tune.run(trainable, config=dict(space), num_samples=n_trials, **options)
        scope = os.environ.get("RAY_SCOPE", "last")
        best = analysis.get_best_trial(metric="objective", mode=direction[:3], scope=scope)
        if best is None:
            raise SearchError("No trial of the search reported an objective. Ray's output above says why.")
        return BestRun(best.trial_id, best.last_result["objective"], best.config, analysis)

    def settings(self, trial: Any, hp_space: Callable[[Any], Any]) -> dict[str, Any]:
        """Return what Ray drew, without what Ray's W&B integration keeps among it, and the folder of the driver."""
        del hp_space
        trial.pop("wandb", None)
        return {"output_dir": self._output_dir, **trial}

    def trial_id(self, trial: Any) -> str:
        """Return Ray's name of the trial that this process runs."""
        del trial
        return str(require("ray.tune", _PURPOSE).get_context().get_trial_id())

    def params(self, trial: Any) -> dict[str, Any]:
        """Return what was drawn."""
        return dict(trial)

    def report(self, search: Search, trial: Any, step: int, metrics: dict[str, float]) -> None:
        """Report the metrics, with a checkpoint where one is due: the trial can be moved, or another begin with it."""
        del trial, step
        _report(search, metrics, keep=search.trainer.control.should_save)


class NewValues(TrainerCallback):
    """Lets a trial that goes on from the checkpoint of another do so with its own learning rate and weight decay.

    The optimizer and the schedule come back from a checkpoint with the values that they were saved with.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._before = json.loads((checkpoint / "training_args.json").read_text(encoding="utf-8"))

    def on_train_begin(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Put the values of today's arguments where those of the checkpoint are."""
        del state, control, kwargs
        faster = args.learning_rate / self._before["learning_rate"] if self._before["learning_rate"] else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * faster
            if "initial_lr" in group:
                group["initial_lr"] = group["initial_lr"] * faster
            if group.get("weight_decay") == self._before["weight_decay"] != 0.0:
                group["weight_decay"] = args.weight_decay
        if hasattr(lr_scheduler, "base_lrs"):
            lr_scheduler.base_lrs = [rate * faster for rate in lr_scheduler.base_lrs]


def run_trial(config: dict[str, Any], search: Search) -> None:
    """Run one trial in a process of Ray's, from the checkpoint that Ray gives it, if it does."""
    tune = require("ray.tune", _PURPOSE)
    trainer = search.trainer
    trainer._search = search
    given = tune.get_checkpoint()
    if given is None:
        trainer.train(trial=config)
    else:
        with given.as_directory() as folder:
            checkpoint = next(Path(folder).glob("checkpoint-*"))
            trainer.add_callback(NewValues(checkpoint))
            trainer.train(resume_from_checkpoint=str(checkpoint), trial=config)
    # A trial that goes on from the checkpoint of its last step has nothing left to report.
    if search.objective is None and given is None:
        metrics = trainer.evaluate()
        search.judge(metrics)
        _report(search, {**metrics, "done": True}, keep=True)


def _report(search: Search, metrics: Mapping[str, Any], *, keep: bool) -> None:
    tune = require("ray.tune", _PURPOSE)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if keep:
            search.trainer._tune_save_checkpoint(checkpoint_dir=folder)
            checkpoint = tune.Checkpoint.from_directory(folder)
        tune.report({**metrics, "objective": search.objective}, checkpoint=checkpoint)


def _one_direction(search: Search) -> str:
    if search.several:
        raise ArgumentError(
            f"direction is {list(search.directions)}, and this backend compares trials by one objective. Give one "
            'direction, or use backend="optuna".'
        )
    return search.directions[0]


def _check_scheduler(search: Search, scheduler: Any) -> None:
    kinds = {kind.__name__ for kind in type(scheduler).__mro__}
    if kinds.intersection(_NEED_REPORTS) and search.trainer.args.eval_strategy == "no":
        raise ArgumentError(
            f'scheduler is a {type(scheduler).__name__}, and eval_strategy is "no": no trial would report anything '
            'before its end. Write eval_strategy="steps" or "epoch".'
        )


def _resources(args: Any) -> dict[str, int]:
    """Return what each trial gets unless somebody says: a core, and a GPU where there is one."""
    resources = {"cpu": 1, "gpu": 1} if args.n_gpu > 0 else {"cpu": 1}
    _logger.info("resources_per_trial is not given: each trial gets %s.", resources)
    return resources


def _made_portable(search: Search) -> Search:
    """Drop what does not travel to another process; each makes its own."""
    trainer = search.trainer
    release_memory(trainer)
    # The one that is there has looked at this process.
    trainer._memory_tracker = TrainerMemoryTracker(trainer.args.skip_memory_metrics, device=trainer.args.device)
    trainer._search = None
    return search

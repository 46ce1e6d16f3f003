"""One search on one trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.errors import ArgumentError, NotServedError
from surestep.runtime.collectives import from_main, on_main
from surestep.trainer.checks import check_objects, takes_trial
from surestep.trainer.search.best import check_objective
from surestep.trainer.search.memory import collect, release_memory
from surestep.trainer.search.settings import Original, set_arguments
from surestep.training.state import CallbackStates

if TYPE_CHECKING:
    from surestep.runtime.world import World
    from surestep.trainer.search.backend import HyperParamSearchBackend
    from surestep.trainer.trainer import Trainer


class Search:
    """What is looked for, what every trial begins with, and what the present one has come to.

    It owns the state of a search; the trainer has one as long as a search is under way. Arguments and callbacks begin
    each trial as the search found them, and the model, the optimizer and the data loaders of a trial end with it.
    `objective` is that of the present trial's last evaluation.
    """

    def __init__(
        self,
        trainer: Trainer,
        backend: HyperParamSearchBackend,
        directions: Sequence[str],
        *,
        several: bool = False,
        hp_space: Callable[[Any], Any],
        compute_objective: Callable[[dict[str, float]], Any],
        hp_name: Callable[[Any], str] | None = None,
    ) -> None:
        _check(trainer, backend)
        self.trainer, self.backend = trainer, backend
        self.directions, self.several = tuple(directions), several
        self.hp_space, self.compute_objective, self.hp_name = hp_space, compute_objective, hp_name
        self.objective: float | list[float] | None = None
        self._arguments = Original(trainer.args)
        self._callbacks = CallbackStates(trainer.callback_handler.callbacks)

    @property
    def world(self) -> World:
        """The place of this process among those that train each trial together."""
        return self.trainer._world

    def set_up(self, trial: Any) -> None:
        """Give the trainer the arguments of a trial, and nothing of the trial before."""
        trainer = self.trainer
        self.objective = None
        self._arguments.put_back()
        self._callbacks.put_back()
        assert trainer.model_init is not None
        values = self.backend.settings(trial, self.hp_space)
        if self.world.size > 1:
            values = from_main(values)
        set_arguments(trainer.args, values, others_are_read=takes_trial(trainer.model_init))
        release_memory(trainer)
        collect(trainer)
        check_objects(trainer, None)
        trainer._take_batch_size()
        self.backend.started(self, trial)

    def run_trial(self, trial: Any, checkpoint: str | None = None) -> float | list[float]:
        """Train, and return the objective of the last evaluation; where there was none, evaluate."""
        try:
            self.trainer.train(resume_from_checkpoint=checkpoint, trial=trial)
            return self.judge(self.trainer.evaluate()) if self.objective is None else self.objective
        finally:
            self.leave_trial()

    def leave_trial(self) -> None:
        """Put everything back that a trial has changed, and free its memory."""
        self._arguments.put_back()
        self._callbacks.put_back()
        self.trainer._trial = None
        self.trainer._take_batch_size()
        release_memory(self.trainer)

    def judge(self, metrics: dict[str, float]) -> float | list[float]:
        """Work out the objective from an evaluation's metrics; the main process does it for all."""

        def objective() -> float | list[float]:
            return check_objective(self.compute_objective(dict(metrics)), self.directions, several=self.several)

        self.objective = on_main(self.world, objective)
        return self.objective

    def run_name(self, trial: Any) -> str:
        """Return the name of a trial, which is that of its folder below the output folder."""
        return f"run-{self.backend.trial_id(trial)}" if self.hp_name is None else str(self.hp_name(trial))

    def folder(self, trial: Any) -> Path:
        """Return the folder of a trial's checkpoints and logs."""
        return self.trainer._output_folder / self.run_name(trial)


def _check(trainer: Trainer, backend: HyperParamSearchBackend) -> None:
    if trainer.model_init is None:
        raise ArgumentError(
            "hyperparameter_search makes a new model for each trial, and this trainer has one model. Pass "
            "Trainer(model_init=...), a function that makes the model, in the place of model."
        )
    if trainer.is_deepspeed_enabled or trainer.args.deepspeed is not None:
        raise NotServedError("hyperparameter_search does not run under DeepSpeed. Leave deepspeed out.")
    if trainer._world.size > 1 and not backend.over_ranks:
        raise NotServedError(
            f'hyperparameter_search(backend="{backend.name}") runs in one process, and this run has '
            f'{trainer._world.size}. Use backend="optuna", with which all of them train each trial, or start one '
            "process."
        )

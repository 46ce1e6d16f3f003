"""Extension points of a search for arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from surestep.checkpoint.layout import folder_name
from surestep.checkpoint.manifest import Header, seal
from surestep.trainer.points.saving import SavingPoints

if TYPE_CHECKING:
    from surestep.trainer.search.backend import HPSearchBackend
    from surestep.trainer.search.best import BestRun
    from surestep.trainer.trainer import Trainer


class SearchingPoints(SavingPoints):
    """`hyperparameter_search`, and what a trial is told and asked on the way."""

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], Any] | None = None,
        compute_objective: Callable[[dict[str, float]], Any] | None = None,
        n_trials: int | None = 20,
        direction: str | list[str] = "minimize",
        backend: str | HPSearchBackend | None = None,
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """Train once for each trial, with arguments drawn from a space, and return the best.

        The trainer needs a `model_init`, which may take the trial. Each trial begins with the arguments and callbacks
        that the search found, a new model and nothing of the trial before; afterwards all of them are back, and the
        trainer has no model until `train()` makes one. On several processes of one run (Optuna only) all of them train
        each trial and return the best, whose `run_summary` the main process alone has.

        Args:
            hp_space: Called with Optuna's trial, returns arguments by name; with Ray and W&B called with None, returns
                the distributions or the sweep's configuration. The default varies learning rate, epochs, seed and
                batch size.
            compute_objective: Called with an evaluation's metrics, returns a number, or a list for several directions.
                The default is the sum of the metrics, `eval_loss` where there are no others.
            n_trials: How many trials; of a study that others or an earlier process work on as well
                (`load_if_exists=True`), how many all together. None with a `timeout` only.
            direction: "minimize", "maximize", or one of them for each objective (Optuna only).
            backend: "optuna", "ray" or "wandb"; the first that is installed.
            hp_name: Called with the trial, returns its name, which is that of its folder below `output_dir`; the
                default is `run-<number>`.
            kwargs: What goes on to the backend. Optuna: the keywords of `create_study` (`storage` may be a path) and of
                `Study.optimize`. Ray: those of `tune.run`. W&B: `sweep_id`, `project`, `entity`, `name`, `metric`.
        """
        from surestep.trainer.search.start import start_search

        return start_search(
            cast("Trainer", self),
            hp_space=hp_space,
            compute_objective=compute_objective,
            n_trials=n_trials,
            direction=direction,
            backend=backend,
            hp_name=hp_name,
            options=kwargs,
        )

    def _hp_search_setup(self, trial: Any) -> None:
        """Take the arguments of a trial, before anything of the run is made. Outside a search nothing changes."""
        self._trial = trial
        if self._search is not None and trial is not None:
            self._search.set_up(trial)

    def _report_to_hp_search(self, trial: Any, step: int, metrics: dict[str, float]) -> None:
        """Tell the search of an evaluation; it may end the trial by raising."""
        if self._search is not None and trial is not None:
            self._search.judge(metrics)
            self._search.backend.report(self._search, trial, step, metrics)

    def _tune_save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a whole checkpoint into a folder that belongs to Ray Tune."""
        root, self._staging_root = self._staging_root, checkpoint_dir
        try:
            self._save_checkpoint(self.model, self._trial)
        finally:
            self._staging_root = root
        seal(Path(checkpoint_dir) / folder_name(self.state.global_step), Header(self.state.global_step))

    @property
    def hp_search_backend(self) -> HPSearchBackend | None:
        """The backend of the search that is under way, None where there is none."""
        if self._search is None:
            return None
        from surestep.trainer.search.backend import HPSearchBackend

        return HPSearchBackend(self._search.backend.name)

    @property
    def hp_name(self) -> Callable[[Any], str] | None:
        """What names the trials of the search that is under way."""
        return None if self._search is None else self._search.hp_name

    @property
    def objective(self) -> float | list[float] | None:
        """What the present trial of a search has come to in its last evaluation."""
        return None if self._search is None else self._search.objective

"""Extension points of saving and loading: the model, and checkpoints to resume from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from surestep.checkpoint.files import files_in
from surestep.checkpoint.layout import (
    OPTIMIZER,
    SCALER,
    SCHEDULER,
    TRAINER_STATE,
    folder_name,
    progress_name,
    random_name,
    step_of,
)
from surestep.checkpoint.manifest import is_foreign
from surestep.checkpoint.names import parameter_names
from surestep.checkpoint.optimizer_state import encode_optimizer
from surestep.checkpoint.stored import stored
from surestep.checkpoint.tree import check_tree, read_tree, write_tree
from surestep.checkpoint.weights import load_weights, save_weights
from surestep.config.enums import SaveStrategy
from surestep.errors import ArgumentError, CheckpointError
from surestep.logs import get_logger
from surestep.runtime.random import capture_random_state, restore_random_state
from surestep.trainer.checks import check_present
from surestep.trainer.points.stepping import SteppingPoints

if TYPE_CHECKING:
    from surestep.checkpoint.stage import Stage
    from surestep.checkpoint.store import CheckpointStore
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run

logger = get_logger(__name__)


class SavingPoints(SteppingPoints):
    """`save_model`, `_save_checkpoint`, `_load_from_checkpoint` and what they stand on."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, its processing class and the arguments to `output_dir` (default: the output folder)."""
        del _internal_call
        if output_dir is not None and "://" in str(output_dir):
            raise ArgumentError(
                f"save_model writes to a folder of this machine, and {output_dir!r} is a URL. Write a folder, and send "
                "what is in it with the store's own tool; checkpoints are sent by save_remote."
            )
        self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write weights (those of `state_dict` if given) with what belongs to them; the main process does it."""
        if not self.args.should_save:
            return
        check_present(self.model)
        folder = self._output_folder if output_dir is None else Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # What a run is to go on from must come back to the last bit; a model for others, in the form that others read.
        portable = self._staging_root is None
        save_weights(self.engine.unwrap(self.model), folder, state_dict=state_dict, original_format=portable)
        processor = self.processing_class
        if processor is None:
            processor = getattr(self.data_collator, "tokenizer", None)
        if processor is not None and hasattr(processor, "save_pretrained"):
            processor.save_pretrained(str(folder))
        self.args.save_json(folder / "training_args.json")

    def _get_output_dir(self, trial: Any) -> str:
        """Return the folder that holds the checkpoints, in a search the trial's own.

        While a checkpoint is written, it is the folder where that is staged.
        """
        return self._as_written(self._checkpoints_of(trial)) if self._staging_root is None else self._staging_root

    def _as_written(self, folder: Path) -> str:
        """Return a folder of the run as `output_dir` was written: './out' stays so."""
        root, inner = str(self.args.output_dir), folder.relative_to(self._output_folder).as_posix()
        return root if inner == "." else f"{root.removesuffix('/')}/{inner}"

    def _checkpoints_of(self, trial: Any) -> Path:
        """Return the folder where checkpoints end up."""
        if self._search is None or trial is None:
            return self._output_folder
        return self._search.folder(trial)

    def _make_store(self) -> CheckpointStore:
        """Return the keeper of this run's checkpoints."""
        from surestep.checkpoint.retention import Retention
        from surestep.checkpoint.store import CheckpointStore

        args = self.args
        retention = Retention(
            last=args.save_total_limit,
            best=args.save_keep_best,
            every=args.save_keep_every,
            greater_is_better=bool(args.greater_is_better),
        )
        return CheckpointStore(self._checkpoints_of(self._trial), world=self._world, retention=retention)

    def _answer_signal(self, run: Run) -> None:
        """Do what a signal asks for between two steps."""
        from surestep.trainer.stopping import answer

        answer(cast("Trainer", self), run)

    def _commit_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint and tell that it is there, or that it could not be saved; with `save_async`, begin to."""
        if self._later is not None:
            self._later.save(model, trial)
        elif self._save_whole(model, trial):
            self.callback_handler.fire("on_save")

    def _finish_saves(self) -> None:
        """Wait for the checkpoint that is being written beside the training, if there is one, and tell of it."""
        if self._later is not None:
            self._later.finish()

    def _end_saves(self) -> None:
        """Wait for it where a run ends, whatever ended it, and for what is being sent; then give the folder free."""
        later, self._later = self._later, None
        try:
            if later is not None:
                later.close()
            if self._mirror is not None:
                self._mirror.close()
            self._mirror = None
        finally:
            self._store.release()

    def _save_whole(self, model: nn.Module, trial: Any) -> bool:
        """Write a checkpoint, remove those that need not be kept, and say whether it is there (see `on_save_error`)."""
        store, step, best = self._store, self.state.global_step, self.state.best_model_checkpoint
        began = time.monotonic()
        if not self._saves.attempt(step, lambda: self._stage_checkpoint(model, trial)):
            self._forget_save(step, best)
            # Served, though in vain: the next one is asked for when it is due.
            self.control.should_save = False
            return False
        self._note_saved(None if self._run is None else self._run.place, time.monotonic() - began)
        self._share_checkpoint(store.root / folder_name(step))
        store.prune(protect=self._protected())
        return True

    def _forget_save(self, step: int, best: str | None) -> None:
        """Take back what a save that failed had noted; `best` is what was the best checkpoint before."""
        self.state.best_model_checkpoint = best
        if self._bests is not None:
            self._bests.not_saved(step)

    def _note_saved(self, place: int | None, seconds: float) -> None:
        self._save_seconds = max(self._save_seconds, seconds)
        if place is not None:
            self._saved_at = place

    def _stage_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint beside its place, and move it there once it is complete."""
        step = self.state.global_step
        with self._store.staging(step, self._score_of(step)) as stage:
            self._fill(stage, model, trial)

    def _score_of(self, step: int) -> float | None:
        """Return the figure of the metric for the best model, where it was measured at this step."""
        return self._score[1] if self._score is not None and self._score[0] == step else None

    def _fill(self, stage: Stage, model: nn.Module, trial: Any) -> None:
        """Write what a checkpoint holds where it is staged."""
        self._model_files = frozenset()
        self._staging_root = str(stage.root)
        try:
            self._save_checkpoint(model, trial)
        finally:
            self._staging_root = None

    def _share_checkpoint(self, folder: Path) -> None:
        """Do what a complete checkpoint is for besides resuming here: send it to the remote folder of the run."""
        if self._mirror is not None:
            self._mirror.send(folder, self._best_folders())

    def _protected(self) -> set[Path]:
        """Return the checkpoints that must not go: those of the best models, and what is being sent."""
        return self._best_folders() | (set() if self._mirror is None else self._mirror.in_flight())

    def _best_folders(self) -> set[Path]:
        best = self.state.best_model_checkpoint
        folders = set() if self._bests is None else set(self._bests.folders())
        return folders if best is None else folders | {Path(best)}

    def _drop_all_but_best(self) -> None:
        """Remove, at the end, what a limit of one checkpoint kept besides the best only to resume from."""
        if self._keeps_best_alone():
            if self._mirror is not None:
                self._mirror.close()
            self._store.prune(protect=self._protected(), keep_newest=False)

    def _keeps_best_alone(self) -> bool:
        return self.args.save_total_limit == 1 and self.state.best_model_checkpoint is not None

    def _save_checkpoint(self, model: nn.Module, trial: Any, metrics: Any = None) -> None:
        """Write everything a resume needs into `<_get_output_dir()>/checkpoint-<step>`.

        Files that an override writes there, before or after `super()`, become part of the checkpoint: it is complete
        only when this method has returned. `metrics` is what older overrides hand on; the best is known before.
        """
        del model, metrics
        self.store_flos()
        folder = Path(self._get_output_dir(trial)) / folder_name(self.state.global_step)
        self.save_model(str(folder), _internal_call=True)
        self._model_files = frozenset(path.relative_to(folder).as_posix() for path in files_in(folder))
        self._note_best_checkpoint()
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
        if self.args.should_save:
            for callback in self.callback_handler.callbacks:
                if callable(getattr(callback, "save_to", None)):
                    callback.save_to(folder)
            self.state.remember([*self.callback_handler.stateful(), self.control])
            self.state.save_to_json(folder / TRAINER_STATE)
            self._write_origin(folder)
            if self._bests is not None:
                self._bests.write(folder)
        if self._run is not None:
            write_tree(folder, progress_name(self._world.rank), {**self._run.state_dict(), "score": self._score})

    def _write_origin(self, folder: Path) -> None:
        """Write into a checkpoint which run it is of."""
        from surestep.trainer.resuming.identity import describe

        describe(cast("Trainer", self)).write(folder)

    def _note_best_checkpoint(self) -> None:
        """Point to the checkpoint of the best step, if it is there or is this one."""
        current = self.state.global_step
        if self._bests is not None:
            self._bests.saving(current, self._checkpoints_of(self._trial) / folder_name(current))
        step = self.state.best_global_step
        if not step:
            return
        best = self._checkpoints_of(self._trial) / folder_name(step)
        if step == current or best.is_dir():
            self.state.best_model_checkpoint = self._as_written(best)

    def check_saveable(self) -> None:
        """Find out before the first step, not at the first save, whether what a checkpoint holds can be saved."""
        args = self.args
        if args.save_strategy == SaveStrategy.NO:
            return
        from surestep.trainer.generation import check_generation_config

        check_generation_config(self.model)
        if args.save_only_model:
            return
        from surestep.checkpoint.optimizer_trial import try_codec

        if self.optimizer is not None and not try_codec(self.optimizer, self._names_by_parameter()):
            logger.warning(
                "Whether a checkpoint can hold the state of %s shows at the first save: no copy of it takes a step.",
                type(self.optimizer).__name__,
            )
        if self.lr_scheduler is not None:
            check_tree(self.lr_scheduler.state_dict(), SCHEDULER)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the state of the optimizer, by parameter name, and of the schedule."""
        if not self.args.should_save:
            return
        folder = Path(output_dir)
        if self.optimizer is not None:
            write_tree(folder, OPTIMIZER, encode_optimizer(self.optimizer, self._names_by_parameter()))
        if self.lr_scheduler is not None:
            write_tree(folder, SCHEDULER, self.lr_scheduler.state_dict())

    def _names_by_parameter(self) -> dict[int, str]:
        return parameter_names(self.engine.unwrap(self.model))

    def _save_scaler(self, output_dir: str) -> None:
        """Write the loss scale, where the precision has one."""
        state = self.engine.precision.state_dict()
        if state is not None and self.args.should_save:
            write_tree(Path(output_dir), SCALER, state)

    def _save_rng_state(self, output_dir: str) -> None:
        """Write the state of every random generator of this process."""
        write_tree(Path(output_dir), random_name(self._world.rank), capture_random_state())

    def save_extra_state(self, folder: str, name: str, state: Any) -> None:
        """Write further state of a subclass, such as a second optimizer's, into a checkpoint: data, no pickle.

        `state` is any nesting of dicts, lists, tuples, tensors, arrays, numbers and texts. Call it in an override of
        `_save_checkpoint` or `_save_optimizer_and_scheduler`.
        """
        write_tree(Path(folder), f"extra_{name}", state)

    def load_extra_state(self, folder: str, name: str) -> Any:
        """Return what `save_extra_state` wrote."""
        return read_tree(Path(folder), f"extra_{name}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights of a checkpoint into the model."""
        target, folder = self.engine.unwrap(self.model if model is None else model), Path(resume_from_checkpoint)
        # Older models stored what newer ones no longer have: told there, no error.
        report = load_weights(target, folder, strict=not is_foreign(folder))
        if report.missing:
            raise CheckpointError(f"The weights in {folder} do not fit the model: see the warning above.")

    def _load_best_model(self) -> None:
        """Load the weights of the best checkpoint into the model."""
        best, metric = self.state.best_model_checkpoint, self.state.best_metric
        if best is None:
            return
        if step_of(Path(best)) in {self.state.best_global_step, None}:
            logger.info("Loading the best model, of step %s (%s).", self.state.best_global_step, metric)
        else:
            logger.warning(
                "The best model (step %s, %s) could not be saved. The best that was saved is loaded: '%s'.",
                self.state.best_global_step,
                metric,
                best,
            )
        self._load_from_checkpoint(best)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Put the states of the optimizer and the schedule back."""
        if checkpoint is None:
            return
        parts = stored(Path(checkpoint))
        if self.optimizer is not None and parts.has(OPTIMIZER) and not self._begins_anew("optimizer", checkpoint):
            parts.load_optimizer(self.optimizer, self._names_by_parameter())
        if self.lr_scheduler is not None and parts.has(SCHEDULER) and not self._begins_anew("schedule", checkpoint):
            parts.load_schedule(self.lr_scheduler)

    def _begins_anew(self, part: str, checkpoint: str) -> bool:
        """Say whether a part of the checkpoint that is resumed was allowed to be of another kind."""
        return self.resume_report is not None and self.resume_report.begins_anew(part, checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Put the loss scale back."""
        if checkpoint is None or not (parts := stored(Path(checkpoint))).has(SCALER):
            return
        if self.engine.precision.state_dict() is None:
            logger.warning("'%s' holds a loss scale, which this run has no use for: it is left out.", checkpoint)
        else:
            self.engine.precision.load_state_dict(parts.scaler())

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Put the random generators of this process back where they were."""
        if checkpoint is None or not (parts := stored(Path(checkpoint))).has_random(self._world.rank):
            return
        state, problems = parts.random(self._world.rank)
        for trouble in [*problems, *restore_random_state(state)]:
            logger.warning("Resuming: %s", trouble)

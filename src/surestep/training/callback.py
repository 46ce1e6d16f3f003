"""The events of a run and the class that listens to them."""

from __future__ import annotations

from typing import Any

from surestep.training.state import TrainerControl, TrainerState

# In the order in which a run fires them; docs/loop.md shows where.
EVENTS = (
    "on_init_end",
    "on_train_begin",
    "on_epoch_begin",
    "on_step_begin",
    "on_substep_end",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_step_end",
    "on_log",
    "on_prediction_step",
    "on_evaluate",
    "on_predict",
    "on_save",
    "on_epoch_end",
    "on_train_end",
    "on_push_begin",
)


class TrainerCallback:
    """Base of what listens to a run. Override the events of interest; the others cost nothing.

    Every event takes `(args, state, control, **kwargs)`. `kwargs` holds `model`, `processing_class`, `optimizer`,
    `lr_scheduler`, `train_dataloader` and `eval_dataloader`; `on_log` adds `logs`, `on_evaluate` and `on_predict` add
    `metrics`. Set flags on `control` to ask for something; return a control to replace it, or None to keep it.

    A callback with more to keep than `ExportableState` holds may define `save_to(folder)`, called while a checkpoint is
    written, and `load_from(folder)`, called on resume before training begins. One with a resource may define `close()`.
    """

    def on_init_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow the construction of the trainer."""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Precede the first epoch."""

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow the last epoch, the summary and the loading of the best model."""

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Precede the first batch of an epoch."""

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow the last step of an epoch."""

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Precede the first micro-batch of a step."""

    def on_substep_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow each micro-batch of a step but the last."""

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow clipping and precede the optimizer."""

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow the optimizer and precede the schedule; gradients are still there."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow a step, once it is counted."""

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow an evaluation; `metrics` has its figures."""

    def on_predict(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow a prediction; `metrics` has its figures."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow a checkpoint, once it is complete on disk; `state` is that of the step that was saved."""

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow an entry in the log history; `logs` has it."""

    def on_prediction_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Follow a batch of an evaluation or prediction."""

    def on_push_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Precede an upload."""

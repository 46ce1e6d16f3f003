"""What every group of extension points finds on the trainer."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from surestep.config.arguments import TrainingArguments
from surestep.engine.engine import Engine
from surestep.errors import ArgumentError
from surestep.losses.shift import Shift
from surestep.metrics.memory import TrainerMemoryTracker
from surestep.metrics.prediction import TrainOutput
from surestep.runtime.world import World
from surestep.training.events import Events
from surestep.training.run import Run
from surestep.training.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from surestep.checkpoint.run_record import RunRecord
    from surestep.checkpoint.store import CheckpointStore
    from surestep.losses.smoothing import LabelSmoother
    from surestep.metrics.shards import ShardWriter
    from surestep.runtime.agreement import Agreement
    from surestep.runtime.signals import Signals
    from surestep.trainer.best import Bests
    from surestep.trainer.hub import Hub
    from surestep.trainer.later_saves import LaterSaves, Look
    from surestep.trainer.measuring import Measures
    from surestep.trainer.remote import Mirror
    from surestep.trainer.resuming.report import ResumeReport
    from surestep.trainer.saves import Saves
    from surestep.trainer.search.search import Search
    from surestep.trainer.stopping import BeforeEvaluation


def _take_over(trainer: Any, handler: Any) -> None:
    if not isinstance(handler, Events):
        raise ArgumentError(
            f"callback_handler is given a {type(handler).__name__}: give a CallbackHandler of surestep, or add "
            "callbacks to the one that is there."
        )
    handler.serve(trainer)
    vars(trainer)["_events"] = handler


class Face:
    """The attributes of a trainer. Public ones are those of the original; the rest belongs to this package."""

    # Says, in a subclass that computes its own loss, whether it is already divided over the accumulated batch.
    loss_is_scaled_for_ga: ClassVar[bool | None] = None
    # What subclasses of the original ask before they go a way of their own; none of these ways is served yet.
    is_deepspeed_enabled: ClassVar[bool] = False
    is_fsdp_enabled: ClassVar[bool] = False
    is_fsdp_xla_enabled: ClassVar[bool] = False
    is_model_parallel: ClassVar[bool] = False
    # Where uploads go; None while there are none.
    hub_model_id: str | None = None

    args: TrainingArguments
    model: Any
    model_wrapped: Any
    model_init: Callable[..., nn.Module] | None
    data_collator: Any
    train_dataset: Any
    eval_dataset: Any
    processing_class: Any
    compute_loss_func: Callable[..., Any] | None
    compute_metrics: Any
    preprocess_logits_for_metrics: Callable[..., Any] | None
    optimizer: Optimizer | None
    lr_scheduler: Any
    optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None
    # Read for every event, so without a Python call.
    callback_handler: Events = property(attrgetter("_events"), _take_over)  # type: ignore[assignment]
    # None where track_best names nothing.
    _bests: Bests | None
    state: TrainerState
    control: TrainerControl
    label_names: list[str]
    label_smoother: LabelSmoother | None
    can_return_loss: bool
    model_accepts_loss_kwargs: bool
    is_in_train: bool
    place_model_on_device: bool
    current_gradient_accumulation_steps: int
    current_flos: float
    model_preparation_time: float

    engine: Engine
    train_output: TrainOutput | None
    # What a resumed run took up; None for a new one.
    resume_report: ResumeReport | None
    _record: RunRecord | None
    _world: World
    # Tokens of this rank that the state counts and the others do not know of yet.
    _own_tokens: int = 0
    _counts_alone: bool = False
    # Whether the host goes on while a batch is copied to the device.
    _non_blocking: bool = False
    _run: Run | None
    _signature_columns: list[str] | None
    # Whether the model's own loss divides by the item count; None until that is known.
    _divides_by_items: bool | None
    # The loss function that was last asked whether it takes the item count, and the answer.
    _function_asked: tuple[Any, bool] = (None, False)
    # Which labels its loss, and what is counted for it, are over.
    _shift: Shift
    # Whether the loss computes with the item count; None until that is known.
    _count_used: bool | None = None
    _num_weights: int | None
    _memory_tracker: TrainerMemoryTracker
    _train_batch_size: int
    _batch_size_taken: int
    _created_lr_scheduler: bool
    _staging_root: str | None
    _store: CheckpointStore
    _saves: Saves
    # Writes checkpoints beside the training, with save_async.
    _later: LaterSaves | None = None
    # Sends checkpoints to a remote folder, with save_remote.
    _mirror: Mirror | None = None
    # The figure of metric_for_best_model that was measured last, and the step.
    _score: tuple[int, float] | None
    _hub: Hub | None
    _measures: Measures | None
    # Takes the predictions under way, where they go to a folder.
    _shards: ShardWriter | None = None
    _model_files: frozenset[str]
    _eval_dataloaders: dict[str, DataLoader[Any]]
    _first_num_input_tokens_seen: int
    _trial: Any
    _search: Search | None
    _ignore_keys_for_eval: list[str] | None
    # Where a request to stop is looked up between two steps.
    _look: Signals | Agreement | Look
    # What the evaluation under way is to leave as it was, should it be cut off.
    _before_evaluation: BeforeEvaluation | None = None
    # The place between two steps that was saved last, and the longest time that a save took.
    _saved_at: int = -1
    _save_seconds: float = 0.0
    _start_time: float
    _first_step: int

    @property
    def _output_folder(self) -> Path:
        """The folder that the run writes into; the arguments have settled it."""
        assert self.args.output_dir is not None
        return Path(self.args.output_dir)

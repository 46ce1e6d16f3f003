"""Metrics by name or object in a trainer: what was asked for, and what sees evaluations and training steps.

`Measures` owns what the user asked for. Each evaluation gets metrics of its own; those of training live as long as the
run, are read at each log, and go into checkpoints with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from surestep.errors import ArgumentError
from surestep.logs import get_logger, warn_once
from surestep.losses.shift import Shift
from surestep.metrics.auroc import Auroc
from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.named import check_metrics, make_metrics
from surestep.metrics.streaming import StreamingMetrics
from surestep.metrics.task import Reading
from surestep.runtime.nested import detach
from surestep.training.outputs import predictions_of

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)


class Measures:
    """The metrics that a trainer was given: for evaluations, and for the batches of training."""

    def __init__(self, metrics: Any, train_metrics: Any, confidence: float | None, seed: int) -> None:
        self.metrics = metrics
        self.train_metrics = metrics if train_metrics is True else train_metrics or None
        if train_metrics is True and metrics is None:
            raise ArgumentError("train_metrics=True measures what metrics names, which is None. Write metrics=[...].")
        if confidence is not None and metrics is None:
            raise ArgumentError(
                f"metrics_confidence={confidence} needs metrics, which is None. Write metrics=['accuracy'], say."
            )
        self.bootstrap = None if confidence is None else Bootstrap(confidence, seed)
        self._told = False
        for name, asked in (("metrics", metrics), ("train_metrics", self.train_metrics)):
            if asked is not None:
                check_metrics(asked, name)

    def for_evaluation(self, trainer: Trainer) -> StreamingMetrics | None:
        """Return new metrics for an evaluation; None where none were asked for."""
        if self.metrics is None:
            return None
        # What is generated is compared with the labels as they are.
        shift = Shift() if getattr(trainer.args, "predict_with_generate", False) else trainer._shift
        return make_metrics(self.metrics, self._reading(trainer, shift), self.bootstrap)

    def for_training(self, trainer: Trainer) -> StreamingMetrics | None:
        """Return new metrics for the batches of training; None where none were asked for."""
        if self.train_metrics is None:
            return None
        made = make_metrics(self.train_metrics, self._reading(trainer, trainer._shift))
        for name, metric in made.metrics.items():
            if isinstance(metric, Auroc):
                raise ArgumentError(
                    f"train_metrics has '{name}', which needs all scores at once. Write train_metrics=[...] without it."
                )
        return made

    def _reading(self, trainer: Trainer, shift: Shift) -> Reading:
        model = trainer.engine.unwrap(trainer.model)
        quiet, self._told = self._told, True
        return Reading(
            config=getattr(model, "config", None),
            processing_class=trainer.processing_class,
            shift=shift,
            main_input=getattr(model, "main_input_name", "input_ids"),
            quiet=quiet,
        )


@contextmanager
def measured(trainer: Trainer, model: nn.Module, inputs: Any) -> Iterator[None]:
    """Show the training metrics what the model returns inside the block; of several calls, the last."""
    metrics = None if trainer._run is None else trainer._run.metrics
    if metrics is None or not isinstance(inputs, Mapping):
        yield
        return
    labels = tuple(inputs.get(name) for name in trainer.label_names)
    seen: list[tuple[Any, bool, Any]] = []

    def note(module: nn.Module, args: Any, given: dict[str, Any], outputs: Any) -> None:
        del module, args
        labelled = any(name in given for name in trainer.label_names)
        seen[:] = [(outputs, labelled, given.get("num_items_in_batch"))]

    handle = model.register_forward_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
    if not seen:
        warn_once(logger, "train_metrics see nothing: compute_loss does not call the model it is given.")
        return
    outputs, with_loss, items = seen[0]
    if any(label is None for label in labels):
        return
    found = detach(predictions_of(outputs, trainer._ignored(None), with_loss=with_loss))
    predictions, wanted = (value[0] if len(value) == 1 else value or None for value in (found, labels))
    if isinstance(outputs, Mapping):
        metrics.reading.shift.learn(predictions, wanted, outputs.get("loss"), items)
    if predictions is not None and trainer.preprocess_logits_for_metrics is not None:
        predictions = trainer.preprocess_logits_for_metrics(predictions, wanted)
    metrics.update(predictions, wanted, inputs)

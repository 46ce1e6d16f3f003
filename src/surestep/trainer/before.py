"""What is looked at when a run begins, before anything is computed: its data, its labels, the figures it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from torch import nn

from surestep.config.enums import IntervalStrategy
from surestep.data.columns import LABEL_ALIASES, has_columns
from surestep.data.labels import label_range
from surestep.data.loaders import has_length
from surestep.errors import ArgumentError, DataError
from surestep.logs import get_logger
from surestep.runtime.together import failing_together
from surestep.trainer.checks import check_trainable
from surestep.trainer.preflight import look
from surestep.trainer.quantised import check_quantised

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)


def check_run(trainer: Trainer) -> None:
    """Raise for a model that cannot be trained, an empty evaluation set, and a label that is no class of the model."""
    check_quantised(trainer.model)
    check_trainable(trainer.model)
    _check_optimizer(trainer)
    sets = dict(_evaluation_sets(trainer))
    for name, dataset in sets.items():
        if has_length(dataset) and len(dataset) == 0:
            raise DataError(f"{name} is empty. Give it at least one sample, or set eval_strategy='no'.")
    for name, dataset in {"train_dataset": trainer.train_dataset, **sets}.items():
        for problem in _labels_of_table(trainer, dataset):
            raise DataError(f"{name}: {problem}")


def _check_optimizer(trainer: Trainer) -> None:
    """Raise where a given optimizer holds no parameter of the model; warn where a loss of the user's may know why."""
    if trainer.optimizer is None:
        return
    from surestep.trainer.points.stepping import SteppingPoints

    own_step = type(trainer).training_step is SteppingPoints.training_step and trainer._computes_own_loss()
    for problem in look.parameters_of(trainer.model, trainer.optimizer):
        if own_step:
            raise ArgumentError(f"optimizers: {problem}")
        logger.warning("optimizers: %s", problem)


def _evaluation_sets(trainer: Trainer) -> Iterator[tuple[str, Any]]:
    """Yield the sets that the run evaluates on, and what to call them."""
    args, given = trainer.args, trainer.eval_dataset
    if given is None or (args.eval_strategy == IntervalStrategy.NO and not args.eval_on_start):
        return
    if isinstance(given, dict):
        yield from ((f"eval_dataset['{name}']", dataset) for name, dataset in given.items())
    else:
        yield "eval_dataset", given


def _labels_of_table(trainer: Trainer, dataset: Any) -> Iterator[str]:
    if not has_columns(dataset) or not hasattr(dataset, "with_format"):
        return
    classes = look.classes_of(trainer.engine.unwrap(trainer.model))
    # "Training" stands for any set but one to predict on.
    if not classes or not trainer._needs_labels(trainer.data_collator, "Training"):
        return
    column = next((name for name in ("labels", *LABEL_ALIASES) if name in dataset.column_names), None)
    bounds = None if column is None else label_range(dataset, column)
    if bounds is not None:
        yield from look.beyond_classes(*bounds, classes)


def first_looked_at(trainer: Trainer, batches: Iterator[Any], count: int) -> Iterator[Any]:
    """Return `batches`, of which the first `count` are fetched together and looked at, the others not touched.

    A label that is no class of the model raises before the model sees it, where the loss is the model's own: on a GPU
    it would bring down the whole process, and say nothing of labels. What raises on one rank, raises on all.
    """

    def parts() -> Iterator[Iterable[Any]]:
        with failing_together(trainer.engine.strategy):
            first = list(islice(batches, count))
            if trainer._computes_own_loss():
                _refuse_strange_labels(first, trainer.engine.unwrap(trainer.model))
        yield first
        yield batches

    return chain.from_iterable(parts())


def _refuse_strange_labels(batches: list[Any], model: nn.Module) -> None:
    for batch in batches:
        for problem in look.strange_labels(batch, model):
            raise DataError(f"train_dataset: {problem}")

"""What a model's predictions and labels stand for, and the forms in which metrics read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from surestep.errors import DataError
from surestep.logs import announce, get_logger
from surestep.losses.shift import IGNORED, Shift
from surestep.metrics.ranks import Ranks

logger = get_logger(__name__)

Kind = Literal["binary", "multiclass", "multilabel", "regression"]
_KINDS: tuple[Kind, ...] = ("binary", "multiclass", "multilabel", "regression")
_PROBLEMS: dict[str, Kind] = {"regression": "regression", "multi_label_classification": "multilabel"}


@dataclass(frozen=True, slots=True)
class Task:
    """What is predicted: the kind, and among how many classes (outputs of a regression, labels of a multi-label task).

    With two classes, whole-number labels and one label a position the kind is `binary`: the second class is the one
    that is looked for.
    """

    kind: Kind
    classes: int


@dataclass(slots=True)
class Reading:
    """How the outputs of a model are read; the task is found at the first batch, and said.

    `shift` says whether position i predicts label i + 1, as in causal language models.
    """

    config: Any = None
    processing_class: Any = None
    shift: Shift = field(default_factory=Shift)
    main_input: str = "input_ids"
    task: Task | None = None
    quiet: bool = False

    def find(self, predictions: Tensor, labels: Tensor) -> Task:
        """Return the task, told by the first batch and the model's configuration."""
        if self.task is None:
            self.task = find_task(predictions, labels, self.config)
            if not self.quiet:
                announce(
                    logger,
                    f"Metrics read predictions of shape {tuple(predictions.shape)} as {self.task.kind}, "
                    f"{self.task.classes} classes. If that is wrong, set problem_type and num_labels in the model's "
                    "config, or pass torchmetrics objects as metrics.",
                )
        return self.task

    def agree(self, ranks: Ranks) -> None:
        """Take the task over from the other ranks where this one has seen no batch."""
        kind = 0 if self.task is None else 1 + _KINDS.index(self.task.kind)
        kinds, classes = ranks.agree(kind), ranks.agree(0 if self.task is None else self.task.classes)
        if self.task is None and any(kinds):
            first = next(rank for rank, kind in enumerate(kinds) if kind)
            self.task = Task(_KINDS[kinds[first] - 1], classes[first])


def find_task(predictions: Tensor, labels: Tensor, config: Any = None) -> Task:
    """Return what is predicted; `config` is the model's, of which `problem_type` and `num_labels` count.

    Float labels of the predictions' shape are those of a multi-label task if they are 0 and 1 alone, over several
    outputs, and of a regression otherwise. Whole-number labels name classes.
    """
    told = _PROBLEMS.get(getattr(config, "problem_type", None) or "")
    width = predictions.shape[-1] if predictions.ndim > 1 else 1
    alike = predictions.shape == labels.shape and labels.ndim > 1 and width > 1
    if told is not None:
        return Task(told, width)
    if labels.dtype.is_floating_point:
        zero_one = alike and bool(((labels == 0) | (labels == 1)).all())
        return Task("multilabel" if zero_one else "regression", width)
    if not predictions.dtype.is_floating_point:
        return _task_of_numbers(config)
    if alike:
        return Task("multilabel", width)
    if predictions.numel() == labels.numel():
        return Task("binary", 2)
    classes = predictions.shape[class_dimension(predictions, labels)]
    return Task("binary" if classes == 2 else "multiclass", classes)


def _task_of_numbers(config: Any) -> Task:
    classes = getattr(config, "num_labels", None) or getattr(config, "vocab_size", None)
    if classes is None:
        raise DataError(
            "The predictions are numbers of classes, and the model's config does not say how many classes there are. "
            "Set config.num_labels, or let preprocess_logits_for_metrics return logits."
        )
    return Task("binary" if classes == 2 else "multiclass", int(classes))


def class_dimension(predictions: Tensor, labels: Tensor) -> int:
    """Return the dimension of the classes: the last, or the second as in (samples, classes, height, width)."""
    shape, wanted = tuple(predictions.shape), tuple(labels.shape)
    if shape[:-1] == wanted:
        return predictions.ndim - 1
    if len(shape) > 2 and shape[:1] + shape[2:] == wanted:
        return 1
    raise DataError(
        f"Metrics cannot compare predictions of shape {shape} with labels of shape {wanted}: labels of (samples, ...) "
        "need predictions of (samples, ..., classes) or (samples, classes, ...). Return such from "
        "preprocess_logits_for_metrics, for example resized to the labels."
    )


@dataclass(frozen=True, slots=True)
class Classified:
    """Predictions of classes, one row a position: what was predicted, what was right, whether it counts.

    `sample` is the row of the batch that a position belongs to. `scores`, of shape (positions, classes), are logits;
    None where the predictions are numbers of classes, in a binary task of one logit there is one column.
    """

    predicted: Tensor
    actual: Tensor
    counted: Tensor
    sample: Tensor
    scores: Tensor | None


@dataclass(frozen=True)
class PredictionBatch:
    """A batch of predictions with its labels, as metrics read it.

    `positions` are the samples' numbers in the dataset, where somebody asks for them.
    """

    predictions: Any
    labels: Any
    reading: Reading = field(default_factory=lambda: Reading(quiet=True))
    inputs: Any = None
    positions: Any = None

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(first_tensor(self.labels))

    @cached_property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The first output and the labels; shifted against each other where the model predicts the next token."""
        predictions, labels = first_tensor(self.predictions), self.labels
        if not isinstance(labels, Tensor):
            raise DataError(
                f"Metrics compare predictions with one tensor of labels, and there are {_described(labels)}. Name one "
                "in label_names, or use the metric 'squad' or compute_metrics."
            )
        if self.reading.shift.shifted and labels.ndim > 1:
            end = (..., slice(None, -1)) if predictions.ndim == labels.ndim else (slice(None), slice(None, -1))
            predictions, labels = predictions[end], labels[..., 1:]
        return predictions, labels

    @cached_property
    def task(self) -> Task:
        """What is predicted."""
        return self.reading.find(*self.pair)

    @cached_property
    def classified(self) -> Classified:
        """The positions of a binary or multi-class task."""
        predictions, labels = self.pair
        if self.task.kind not in ("binary", "multiclass"):
            raise DataError(f"There are no classes in a task that is {self.task.kind}.")
        actual = labels.reshape(-1)
        sample = torch.arange(len(labels), device=labels.device).repeat_interleave(actual.numel() // len(labels))
        counted = actual != IGNORED
        scores = self._scores(predictions, labels)
        if scores is None:
            predicted = predictions.reshape(-1)
            counted = counted & (predicted != IGNORED)
        else:
            predicted = (scores > 0).long()[:, 0] if scores.shape[1] == 1 else scores.argmax(1)
        inside = counted.long()
        return Classified(predicted.long() * inside, actual.long() * inside, counted, sample, scores)

    @cached_property
    def several(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, labels (0 or 1) and what counts in a multi-label task, each of shape (samples, labels)."""
        predictions, labels = self.pair
        self._check_alike(predictions, labels)
        counted = labels != IGNORED
        return predictions, labels.long() * counted, counted

    @cached_property
    def amounts(self) -> tuple[Tensor, Tensor]:
        """Predictions and labels of a regression, in one shape (samples, outputs)."""
        predictions, labels = self.pair
        if predictions.numel() == labels.numel():
            return predictions.reshape(len(labels), -1), labels.reshape(len(labels), -1)
        self._check_alike(predictions, labels)
        return predictions, labels

    @staticmethod
    def _scores(predictions: Tensor, labels: Tensor) -> Tensor | None:
        if not predictions.dtype.is_floating_point:
            PredictionBatch._check_alike(predictions, labels)
            return None
        if predictions.numel() == labels.numel():
            return predictions.reshape(-1, 1)
        classes = class_dimension(predictions, labels)
        return predictions.movedim(classes, -1).reshape(-1, predictions.shape[classes])

    @staticmethod
    def _check_alike(predictions: Tensor, labels: Tensor) -> None:
        if predictions.shape != labels.shape:
            raise DataError(
                f"Metrics cannot compare predictions of shape {tuple(predictions.shape)} with labels of shape "
                f"{tuple(labels.shape)}. Return predictions of the labels' shape from preprocess_logits_for_metrics."
            )


def first_tensor(value: Any) -> Tensor:
    """Return the first tensor of a nested structure: of several outputs the one that metrics read."""
    if isinstance(value, Tensor):
        return value
    inner = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(inner, tuple | list) and inner:
        return first_tensor(inner[0])
    raise DataError(f"Metrics read tensors, and there are {_described(value)}. Use compute_metrics for such.")


def _described(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, tuple | list) else f"objects of type {type(value).__name__}"

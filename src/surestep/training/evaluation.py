"""The evaluation loop: batches through the model, outputs collected, losses weighed, metrics computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from surestep.losses.items import IGNORED
from surestep.metrics.collect import PADDING, Collector
from surestep.metrics.prediction import EvalLoopOutput, EvalPrediction
from surestep.runtime.nested import batch_length, to_plain
from surestep.runtime.world import World
from surestep.training.protocols import Fires

T = TypeVar("T")
_PARTS = ("logits", "labels", "inputs", "losses")
PredictionStep = Callable[[nn.Module, Any, bool, list[str] | None], tuple[Any, Any, Any]]


class ComputeMetrics(Protocol):
    """A user's metric function; with `batch_eval_metrics` it also takes `compute_result`."""

    def __call__(self, prediction: EvalPrediction, **kwargs: Any) -> Mapping[str, Any] | None:
        """Return figures by name."""


class Ranks(Protocol):
    """What brings the ranks of a run together."""

    @property
    def world(self) -> World:
        """This process's place among them."""

    def gather(self, value: Any, *, padding: int = -100) -> Any:
        """Return the samples of all ranks from a nested structure of tensors; None from a rank that has none."""

    def agree(self, number: int) -> list[int]:
        """Return a number from every rank."""


@dataclass
class EvaluationPlan:
    """What an evaluation does, worked out before its first batch.

    With `batch_metrics` a metric sees batch after batch, and outputs are kept beyond that only if `collect` says so.
    `padding` joins predictions of different widths.
    """

    model: nn.Module
    prediction_step: PredictionStep
    events: Fires
    loss_only: bool
    ignore_keys: list[str] | None
    prefix: str
    compute_metrics: ComputeMetrics | None
    preprocess_logits: Callable[[Any, Any], Any] | None
    ranks: Ranks
    main_input: str = "input_ids"
    include: frozenset[str] = frozenset()
    batch_metrics: bool = False
    concatenate: bool = True
    offload_every: int | None = None
    shifted_labels: bool = False
    hide_nonfinite: bool = False
    collect: bool = True
    padding: int = PADDING


@dataclass
class WeighedLoss:
    """Losses of batches with what each stands for: the mean is one over items, whatever the batch size.

    Losses stay on the device until the mean is asked for.
    """

    losses: list[Tensor] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, loss: Tensor, weight: float) -> None:
        """Take the mean loss of a batch over `weight` items."""
        self.losses.append(loss.detach().mean())
        self.weights.append(weight)

    def mean(self, ranks: Ranks, *, hide_nonfinite: bool) -> float | None:
        """Return the mean over all items of all ranks, None where no batch had a loss.

        `hide_nonfinite` leaves out the batches whose loss is not finite.
        """
        own = None
        if self.losses:
            weighed = torch.tensor(self.weights, dtype=torch.float64, device=self.losses[0].device)
            own = (torch.stack(self.losses).double(), weighed)
        everyone = ranks.gather(own)
        if everyone is None:
            return None
        losses, weights = (column.cpu().numpy() for column in everyone)
        finite = np.isfinite(losses)
        if hide_nonfinite and finite.any():
            losses, weights = losses[finite], weights[finite]
        counted = weights > 0
        if not counted.any():
            return float(losses.mean())
        return float((losses[counted] * weights[counted]).sum() / weights[counted].sum())


def evaluate_batches(plan: EvaluationPlan, batches: Iterable[Any], num_samples: int | None) -> EvalLoopOutput:
    """Run every batch and return predictions, labels and metrics; `num_samples` is what the dataset says of itself."""
    kept = {name: Collector(concatenate=plan.concatenate) for name in _PARTS}
    kept["logits"].padding = plan.padding
    loss, seen, metrics = WeighedLoss(), 0, None
    for step, (inputs, is_last) in enumerate(_rounds(batches, plan.ranks), start=1):
        seen += batch_length(inputs) or 0
        batch = _gathered(plan, {} if inputs is None else _run(plan, inputs, loss))
        plan.events.fire("on_prediction_step")
        if plan.batch_metrics:
            metrics = _measure(plan, batch, compute_result=is_last)
        if not plan.collect:
            continue
        for name, collector in kept.items():
            collector.add(batch[name])
            if plan.offload_every is not None and step % plan.offload_every == 0:
                collector.offload()
    arrays = {name: collector.result() for name, collector in kept.items()}
    if not plan.batch_metrics:
        metrics = _measure(plan, arrays)
    return EvalLoopOutput(
        predictions=arrays["logits"],
        label_ids=arrays["labels"],
        metrics=_named(plan, metrics, loss),
        num_samples=num_samples or sum(plan.ranks.agree(seen)),
    )


def _run(plan: EvaluationPlan, inputs: Any, loss: WeighedLoss) -> dict[str, Any]:
    """Put one batch through the model and return what there is of outputs, by name."""
    size = batch_length(inputs) or 0
    losses, logits, labels = plan.prediction_step(plan.model, inputs, plan.loss_only, plan.ignore_keys)
    batch: dict[str, Any] = {}
    if losses is not None:
        weight = loss_weight(inputs, shifted=plan.shifted_labels)
        loss.add(losses, size if weight is None else weight)
        if "loss" in plan.include:
            batch["losses"] = losses.detach().mean().repeat(size)
    if "inputs" in plan.include:
        batch["inputs"] = inputs if plan.batch_metrics else inputs[plan.main_input]
    if logits is not None and plan.preprocess_logits is not None:
        logits = plan.preprocess_logits(logits, labels)
    return batch | {name: value for name, value in {"logits": logits, "labels": labels}.items() if value is not None}


def _gathered(plan: EvaluationPlan, batch: dict[str, Any]) -> dict[str, Any]:
    """Bring together what the ranks made of their batches; every part is named, and None where there is none."""
    if not plan.loss_only or plan.include:
        logits = plan.ranks.gather(batch.pop("logits", None), padding=plan.padding)
        batch = plan.ranks.gather(batch or None) or {}
        batch["logits"] = logits
    return dict.fromkeys(_PARTS) | batch


def _measure(plan: EvaluationPlan, parts: Mapping[str, Any], **asked: bool) -> Mapping[str, Any] | None:
    """Call the metric function, where there is one and the parts hold both predictions and labels."""
    if plan.compute_metrics is None or parts["logits"] is None or parts["labels"] is None:
        return None
    inputs = parts["inputs"] if "inputs" in plan.include else None
    losses = parts["losses"] if "loss" in plan.include else None
    return plan.compute_metrics(EvalPrediction(parts["logits"], parts["labels"], inputs, losses), **asked)


def _named(plan: EvaluationPlan, metrics: Mapping[str, Any] | None, loss: WeighedLoss) -> dict[str, float]:
    """Put the loss beside the metrics and the prefix before every name; what has it comes first, as in the original."""
    start = f"{plan.prefix}_"
    given: dict[str, float] = dict(to_plain(dict(metrics or {})))
    figures = {name: value for name, value in given.items() if name.startswith(start)}
    mean = loss.mean(plan.ranks, hide_nonfinite=plan.hide_nonfinite)
    if mean is not None:
        figures[f"{start}loss"] = mean
    return figures | {start + name: value for name, value in given.items() if not name.startswith(start)}


def loss_weight(inputs: Any, *, shifted: bool) -> float | None:
    """Return how many items the loss of a batch is a mean over: its labels that are not -100; None where unknown.

    Whole-number labels count one by one, those of a causal model after the shift; the loss over any others is taken
    as a mean over samples.
    """
    labels = inputs.get("labels") if isinstance(inputs, Mapping) else None
    if not isinstance(labels, Tensor) or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        return None
    if shifted and labels.dim() > 1:
        labels = labels[..., 1:]
    return float((labels != IGNORED).sum())


def _rounds(batches: Iterable[T], ranks: Ranks) -> Iterator[tuple[T | None, bool]]:
    """Yield this rank's batch of every round with whether the round is the last; None where only others have one."""
    iterator = iter(batches)
    batch = next(iterator, None)
    going = any(ranks.agree(int(batch is not None)))
    while going:
        following = None if batch is None else next(iterator, None)
        going = any(ranks.agree(int(following is not None)))
        yield batch, not going
        batch = following

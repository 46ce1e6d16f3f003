"""The evaluation loop: batches through the model, outputs collected, losses weighed, metrics computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from surestep.errors import DataError, interruption
from surestep.logs import get_logger, warn_once
from surestep.losses.items import count_answers, count_items
from surestep.losses.shift import IGNORED, Shift
from surestep.metrics.collect import PADDING, Collector, holds_objects
from surestep.metrics.prediction import EvalLoopOutput, EvalPrediction
from surestep.metrics.ranks import Ranks, exact, summed
from surestep.metrics.spill import Store
from surestep.runtime.nested import batch_length, to_numpy, to_plain
from surestep.runtime.together import failing_together
from surestep.training.protocols import Fires

if TYPE_CHECKING:
    from surestep.metrics.shards import ShardWriter
    from surestep.metrics.streaming import StreamingMetrics

logger = get_logger(__name__)
T = TypeVar("T")
# One number carries a size and a signal; none has so high a number.
_SIGNALS = 128
_PARTS = ("logits", "labels", "inputs", "losses")
PredictionStep = Callable[[nn.Module, Any, bool, list[str] | None], tuple[Any, Any, Any]]


class ComputeMetrics(Protocol):
    """A user's metric function; with `batch_eval_metrics` it also takes `compute_result`."""

    def __call__(self, prediction: EvalPrediction, **kwargs: Any) -> Mapping[str, Any] | None:
        """Return figures by name."""


@dataclass
class EvaluationPlan:
    """What an evaluation does, worked out before its first batch.

    `loss_only` and `collect` say whether outputs are kept; `metrics` see them either way and keep sums. With
    `batch_metrics` a metric function sees batch after batch. `padding` joins predictions of different widths.
    `spill_bytes` is what may be kept in memory; more goes to disk. `order` names, for each sample as it is read, its
    number in the dataset, of `dataset_size` samples; `reads_all` says that each of these must come. `shards` takes this
    rank's outputs. The loss leaves out labels that are `ignored_label`. `stopping` gives the number of the signal that
    asks this process to end, or 0.
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
    shift: Shift = field(default_factory=Shift)
    ignored_label: int = IGNORED
    hide_nonfinite: bool = False
    collect: bool = True
    padding: int = PADDING
    metrics: StreamingMetrics | None = None
    spill_bytes: int | None = None
    order: np.ndarray[Any, Any] | None = None
    dataset_size: int | None = None
    reads_all: bool = False
    objects: bool = False
    stopping: Callable[[], int] | None = None
    shards: ShardWriter | None = None


@dataclass(slots=True)
class Round(Generic[T]):
    """A batch on every rank: this rank's, or None; the sizes of all; whether more follow.

    `stopping` is the signal that asks one of the ranks to end, or 0.
    """

    batch: T | None
    sizes: list[int]
    is_last: bool
    stopping: int = 0


class WeighedLoss:
    """Losses of batches with what each stands for: the mean is one over items, whatever the batch size.

    Sums stay on the device until the mean is asked for; they are those of all batches and of the finite ones.
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def add(self, loss: Tensor, weight: Tensor | float) -> None:
        """Take the mean loss of a batch, a scalar, over `weight` items."""
        value = exact(loss.detach())
        # A number is written by the device itself: copied there, it would make the host wait for the batch.
        given = (
            exact(weight.detach()).to(value.device) if isinstance(weight, Tensor) else torch.full_like(value, weight)
        )
        # The mean over no items is NaN, and stands for nothing.
        weighed = torch.where(given > 0, value * given, 0.0)
        row = torch.stack([weighed, value, given, torch.ones_like(value)])
        rows = torch.stack([row, torch.where(value.isfinite(), row, 0.0)])
        self.sums = rows if self.sums is None else self.sums.add_(rows)

    def mean(self, ranks: Ranks, *, hide_nonfinite: bool) -> float | None:
        """Return the mean over all items of all ranks, None where no batch had a loss.

        `hide_nonfinite` leaves out the batches whose loss is not finite.
        """
        everyone = summed(self.sums, ranks)
        return None if everyone is None else _mean(everyone, hide_nonfinite=hide_nonfinite)


def _mean(sums: Tensor, *, hide_nonfinite: bool) -> float:
    everything, finite = sums.tolist()
    weighed, plain, weight, batches = finite if hide_nonfinite and finite[3] else everything
    return float(weighed / weight if weight > 0 else plain / batches)


class Losses:
    """The losses of an evaluation by name; the only one of most has none, and is called `loss`.

    Where there are several, `loss` is their sum, and each is `loss_<name>`.
    """

    def __init__(self) -> None:
        self._by_name: defaultdict[str, WeighedLoss] = defaultdict(WeighedLoss)

    def add(self, loss: Any, weight: float) -> Tensor:
        """Take the loss of a batch and return its mean; a pair has its own weight, a mean stands for `weight` items."""
        if isinstance(loss, Tensor):
            mean = loss.detach().mean()
            self._by_name[""].add(mean, weight)
            return mean
        from surestep.losses.pair import pairs_of

        pairs = pairs_of(loss, weight)
        for name, pair in pairs.items():
            self._by_name[name].add(pair.mean(), pair.weight)
        return torch.stack([pair.mean().detach() for pair in pairs.values()]).sum()

    def figures(self, ranks: Ranks, *, hide_nonfinite: bool) -> dict[str, float]:
        """Return the means over all ranks by the name of the figure; nothing where no batch had a loss."""
        own = {name: loss.sums[None] for name, loss in sorted(self._by_name.items()) if loss.sums is not None}
        everyone = ranks.gather(own or None)
        if everyone is None:
            return {}
        means = {name: _mean(sums.sum(0), hide_nonfinite=hide_nonfinite) for name, sums in everyone.items()}
        return {"loss": sum(means.values())} | {f"loss_{name}": mean for name, mean in means.items() if name}


def evaluate_batches(plan: EvaluationPlan, batches: Iterable[Any], num_samples: int | None) -> EvalLoopOutput:
    """Run every batch and return predictions, labels and metrics; `num_samples` is what the dataset says of itself.

    Raises:
        Interrupted: a signal asked one of the ranks to end; all of them leave before the same batch.
    """
    with Store(plan.spill_bytes) as store, plan.metrics or nullcontext():
        kept = {n: Collector(concatenate=plan.concatenate, store=store, objects=plan.objects) for n in _PARTS}
        kept["logits"].padding = plan.padding
        loss, figures, seen, packed = Losses(), None, 0, True
        for step, turn in enumerate(_rounds(batches, plan), start=1):
            if turn.stopping:
                raise interruption(turn.stopping)
            positions = _positions(plan, turn.sizes, seen)
            seen, packed = seen + sum(turn.sizes), packed and max(turn.sizes) == 1
            with failing_together(plan.ranks):
                own = {} if turn.batch is None else _run(plan, turn.batch, loss, positions)
            batch = _gathered(plan, own)
            plan.events.fire("on_prediction_step")
            if plan.batch_metrics:
                figures = _measure(plan, batch, compute_result=turn.is_last)
            if plan.collect and not plan.loss_only:
                _keep(kept, store, batch, offload=plan.offload_every is not None and step % plan.offload_every == 0)
        _check_count(plan, seen, packed=packed)
        places = _places(plan, seen)
        arrays = {name: collector.result(places) for name, collector in kept.items()}
        if not plan.batch_metrics:
            figures = _measure(plan, arrays)
        if plan.metrics is not None:
            figures = {**plan.metrics.compute(plan.ranks), **(figures or {})}
    return EvalLoopOutput(
        predictions=arrays["logits"],
        label_ids=arrays["labels"],
        metrics=_named(plan, figures, loss),
        num_samples=num_samples or seen,
    )


def _keep(kept: Mapping[str, Collector], store: Store, batch: Mapping[str, Any], *, offload: bool) -> None:
    """Keep the parts of a batch, on their device unless it is time to move them or memory is full."""
    for name, part in batch.items():
        if part is not None:
            kept[name].add(part)
    if offload or store.full:
        for collector in kept.values():
            collector.offload()


def _positions(plan: EvaluationPlan, sizes: list[int], seen: int) -> np.ndarray[Any, Any]:
    """Return the numbers in the dataset of the samples that this rank has in a round."""
    rank = plan.ranks.world.rank
    start = seen + sum(sizes[:rank])
    read = np.arange(start, start + sizes[rank])
    return read if plan.order is None or start + sizes[rank] > len(plan.order) else plan.order[read]


def _places(plan: EvaluationPlan, seen: int) -> np.ndarray[Any, Any] | None:
    """Return where each sample belongs among those seen, so that they come in the dataset's order."""
    if plan.order is None or seen > len(plan.order):
        return None
    return plan.order[:seen].argsort().argsort()


def _check_count(plan: EvaluationPlan, seen: int, *, packed: bool) -> None:
    """Raise where samples were lost on the way, and say once where they are left out on purpose, or are not rows."""
    size = plan.dataset_size
    if size is None or seen == size:
        return
    if seen < size and not plan.reads_all:
        warn_once(
            logger,
            f"The evaluation covers {seen} of the {size} samples of its set: dataloader_drop_last=True, or a loader or "
            "sampler of your own, leaves some out.",
        )
    elif seen < size and not packed:
        raise DataError(
            f"The evaluation set has {size} samples, and {seen} rows came to the model: the data_collator leaves some "
            "out. Let it return a row for each sample it is given, or filter the dataset beforehand."
        )
    else:
        warn_once(
            logger,
            f"The evaluation set has {size} samples, and batches have {seen} rows in all: several samples make one "
            "row, or one makes several. Predictions are those of rows.",
        )


def _run(plan: EvaluationPlan, inputs: Any, loss: Losses, positions: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Put one batch through the model and return what there is of outputs, by name."""
    size = len(positions)
    loss_alone = plan.loss_only and plan.metrics is None
    losses, logits, labels = plan.prediction_step(plan.model, inputs, loss_alone, plan.ignore_keys)
    batch: dict[str, Any] = {}
    if losses is not None:
        plan.shift.learn(logits, labels, losses)
        weight = loss_weight(inputs, shifted=plan.shift.shifted, ignored=plan.ignored_label, main_input=plan.main_input)
        mean = loss.add(losses, size if weight is None else weight)
        if "loss" in plan.include:
            batch["losses"] = mean.repeat(size)
    if "inputs" in plan.include:
        batch["inputs"] = inputs if plan.batch_metrics else inputs[plan.main_input]
    if logits is not None and plan.preprocess_logits is not None:
        logits = plan.preprocess_logits(logits, labels)
        if logits is None:
            raise DataError(
                "preprocess_logits_for_metrics returned None. Return what metrics are to see, for example "
                "logits.argmax(-1)."
            )
    if plan.metrics is not None:
        plan.metrics.update(logits, labels, inputs, positions)
    if plan.shards is not None:
        plan.shards.add({"predictions": logits, "label_ids": labels}, positions)
    if plan.loss_only:
        return batch
    return batch | {name: value for name, value in {"logits": logits, "labels": labels}.items() if value is not None}


def _gathered(plan: EvaluationPlan, batch: dict[str, Any]) -> dict[str, Any]:
    """Bring together what the ranks made of their batches; every part is named, and None where there is none."""
    if not _needs_all(plan):
        return dict.fromkeys(_PARTS)
    if plan.ranks.world.size == 1:
        return dict.fromkeys(_PARTS) | batch
    if plan.objects:
        return {name: _gathered_objects(plan.ranks, batch.get(name)) for name in _PARTS}
    logits = plan.ranks.gather(batch.pop("logits", None), padding=plan.padding)
    return dict.fromkeys(_PARTS) | (plan.ranks.gather(batch or None) or {}) | {"logits": logits}


def _gathered_objects(ranks: Ranks, value: Any) -> Any:
    """Bring together what may be any objects: lists of the ranks are appended to each other."""
    kinds = ranks.agree(int(value is not None and holds_objects(value)))
    if not any(kinds) or len(kinds) == 1:
        return ranks.gather(value)
    everyone = (one for one in ranks.gather_objects(to_numpy(value)) if one is not None)
    return [sample for one in everyone for sample in (one if isinstance(one, list) else [one])]


def _needs_all(plan: EvaluationPlan) -> bool:
    """Say whether anybody looks at the outputs of all ranks."""
    return (plan.collect and not plan.loss_only) or (plan.batch_metrics and plan.compute_metrics is not None)


def _measure(plan: EvaluationPlan, parts: Mapping[str, Any], **asked: bool) -> Mapping[str, Any] | None:
    """Call the metric function, where there is one and the parts hold both predictions and labels."""
    if plan.compute_metrics is None or parts["logits"] is None or parts["labels"] is None:
        return None
    inputs = parts["inputs"] if "inputs" in plan.include else None
    losses = parts["losses"] if "loss" in plan.include else None
    figures: Any = plan.compute_metrics(EvalPrediction(parts["logits"], parts["labels"], inputs, losses), **asked)
    if figures is not None and not isinstance(figures, Mapping):
        raise DataError(
            f"compute_metrics returned a {type(figures).__name__}. Return a dict of figures by name, such as "
            "{'accuracy': 0.9}."
        )
    return figures


def _named(plan: EvaluationPlan, metrics: Mapping[str, Any] | None, loss: Losses) -> dict[str, float]:
    """Put the loss beside the metrics and the prefix before every name; what has it comes first, as in the original."""
    start = f"{plan.prefix}_"
    given: dict[str, float] = dict(to_plain(dict(metrics or {})))
    figures = {name: value for name, value in given.items() if name.startswith(start)}
    means = loss.figures(plan.ranks, hide_nonfinite=plan.hide_nonfinite)
    figures |= {start + name: mean for name, mean in means.items()}
    return figures | {start + name: value for name, value in given.items() if not name.startswith(start)}


def loss_weight(inputs: Any, *, shifted: bool, ignored: int = IGNORED, main_input: str = "input_ids") -> float | None:
    """Return how many items the loss of a batch is a mean over: its labels that are not `ignored`; None where unknown.

    Whole-number labels count one by one, those of a causal model after the shift, and so do answers that lie within the
    sequence, `main_input`; the loss over any others is taken as a mean over samples.
    """
    labels = inputs.get("shift_labels", inputs.get("labels")) if isinstance(inputs, dict | Mapping) else None
    if labels is None and isinstance(inputs, Mapping):
        return _answers(inputs, inputs.get(main_input))
    if not isinstance(labels, Tensor) or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        return None
    count = count_items([inputs], shifted=shifted and labels.dim() > 1, ignored=ignored)
    return None if count is None else float(count)


def _answers(inputs: Mapping[str, Any], read: Any) -> float | None:
    """Return how many answers the loss of a batch is a mean over."""
    counts = count_answers(inputs, read.shape[1]) if isinstance(read, Tensor) and read.dim() > 1 else None
    if counts is None:
        return None
    starts, ends = map(int, counts)
    if starts != ends:
        warn_once(
            logger,
            "Some answers are cut off between their start and their end. A batch then weighs the mean of both counts, "
            "and the loss of an evaluation depends a little on its batch size. Cut no answer in two (make both "
            "positions 0, as for a text without an answer), or return pairs from compute_loss.",
        )
    return (starts + ends) / 2


def _rounds(batches: Iterable[T], plan: EvaluationPlan) -> Iterator[Round[T]]:
    """Yield the rounds of all ranks; the last ones may find a batch on some ranks alone."""
    iterator = iter(batches)
    batch = next(iterator, None)
    sizes, stopping = _exchange(batch, plan)
    while max(sizes) >= 0:
        following = None if batch is None else next(iterator, None)
        after, asked = _exchange(following, plan)
        yield Round(batch, [max(size, 0) for size in sizes], max(after) < 0, stopping or asked)
        batch, sizes, stopping = following, after, asked


def _exchange(batch: Any, plan: EvaluationPlan) -> tuple[list[int], int]:
    """Return how many samples each rank has, -1 where it has no batch, and the signal that asks one of them to end."""
    size = -1 if batch is None else _rows(batch, plan.main_input)
    signal_number = 0 if plan.stopping is None else plan.stopping()
    if plan.ranks.world.size == 1:
        return [size], signal_number
    told = plan.ranks.agree((size + 1) * _SIGNALS + signal_number)
    return [one // _SIGNALS - 1 for one in told], next((one % _SIGNALS for one in told if one % _SIGNALS), 0)


def _rows(inputs: Any, main_input: str) -> int:
    """Return the samples of a batch: the rows of its labels, else of the main input, else of its first tensor."""
    if isinstance(inputs, dict | Mapping):
        for name in ("labels", main_input):
            rows = batch_length(inputs.get(name))
            if rows is not None:
                return rows
    return batch_length(inputs) or 0

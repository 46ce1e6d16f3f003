"""How many items (labels) a loss counts, and whether a model's loss divides by the count that it is given.

A model that divides its summed loss by the count of the whole step gives an exact mean over ragged micro-batches; one
that ignores the count gives a mean over its own micro-batch, which the trainer divides by their number. The original
tells the two apart by the signature of `forward`, and so makes the loss of models that merely accept keywords too
large. Here a declaration counts, and without one the model is asked: its loss is taken without a count and with one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surestep.losses.shift import IGNORED
from surestep.runtime.modes import to_evaluation

# Two losses of one batch agree when they differ by no more than rounding, bfloat16 included.
_TOLERANCE = 5e-3

LossOf = Callable[[Any], Tensor]


@dataclass(frozen=True, slots=True)
class ItemUse:
    """What a loss does with the item count: whether it divides by it, and whether it shifts labels before counting.

    `shifted` is None where that was not told.
    """

    used: bool
    shifted: bool | None = None


def accepts_count(model: Any) -> bool:
    """Say whether the model may take an item count: declared by `accepts_loss_kwargs`, else by `forward(**kwargs)`."""
    declared = getattr(model, "accepts_loss_kwargs", None)
    if declared is not None:
        return bool(declared)
    parameters = inspect.signature(model.forward).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def function_takes_count(function: Any) -> bool:
    """Say whether a loss function can be called with `num_items_in_batch`; yes, where nothing tells."""
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters
    except (TypeError, ValueError):
        return True
    keywords = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return keywords or "num_items_in_batch" in parameters


def ignored_label(model: Any) -> int:
    """Return the label that a model's own loss leaves out: segmentation names one in its configuration; else -100."""
    named = getattr(getattr(model, "config", None), "semantic_loss_ignore_index", None)
    return IGNORED if named is None else int(named)


def count_items(batches: Sequence[Any], *, shifted: bool, ignored: int = IGNORED) -> Tensor | None:
    """Count the labels that are not `ignored` over micro-batches; None where labels are no tensors.

    `shift_labels`, where a collator gives them, are counted as they are.
    """
    total: Tensor | int = 0
    for batch in batches:
        labels = batch.get("shift_labels")
        if labels is None:
            labels = batch.get("labels")
            if not isinstance(labels, Tensor):
                return None
            labels = labels[..., 1:] if shifted else labels
        total = total + (labels != ignored).sum()
    return total if isinstance(total, Tensor) else None


def count_answers(batch: Mapping[str, Any], length: int) -> tuple[Tensor, Tensor] | None:
    """Count the starts and the ends of answers that lie within a sequence of `length`; None where there are none.

    What lies beyond was cut off with the text, and the losses of models that answer questions leave it out: each is the
    mean of a mean over starts and one over ends.
    """
    ends = [batch.get(name) for name in ("start_positions", "end_positions")]
    if not all(isinstance(end, Tensor) and not end.dtype.is_floating_point for end in ends):
        return None
    starts, stops = ((end < length).sum() for end in ends if isinstance(end, Tensor))
    return starts, stops


def probe_item_use(loss_of: LossOf, batch: Mapping[str, Any]) -> ItemUse:
    """Find out what a loss does with the item count by taking it without one and with one.

    `loss_of(count)` returns the loss of `batch`; call this inside `undisturbed`. A loss that divides by the count in
    no way that is understood is taken as not using it.
    """
    counts = {shifted: _labels(batch, shifted=shifted) for shifted in (False, True)}
    if counts[False] == 0:
        return ItemUse(used=False)
    given = 3 * counts[False] + 1
    plain = _number(loss_of(None))
    try:
        counted = _number(loss_of(torch.tensor(given)))
    except TypeError:
        # A forward that hands its keywords on to one that does not know the count.
        return ItemUse(used=False)
    if plain == 0 or _close(plain, counted):
        return ItemUse(used=False)
    true_count = counted * given / plain
    shifted = min(counts, key=lambda choice: abs(counts[choice] - true_count))
    if not _close(true_count, counts[shifted]):
        return ItemUse(used=False)
    return ItemUse(used=True, shifted=None if counts[False] == counts[True] else shifted)


def _number(loss: Any) -> float:
    """Read a loss; a pair or a dict of them is divided by the trainer, and so by no count: 0 tells nothing."""
    return float(loss) if isinstance(loss, Tensor) else 0.0


def _labels(batch: Mapping[str, Any], *, shifted: bool) -> int:
    count = count_items([batch], shifted=shifted)
    return 0 if count is None else int(count)


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _TOLERANCE * max(abs(one), abs(other))


@dataclass(slots=True)
class CountRecord:
    """Whether somebody has computed with an item count."""

    used: bool = False


# What only hands a tensor on, or describes it.
_CARRYING = frozenset({"to", "cpu", "cuda", "clone", "detach", "contiguous", "float", "double", "long", "int"})
_DESCRIBING = frozenset({"__get__", "__repr__", "__format__", "__hash__", "dim", "size", "is_floating_point", "numel"})


class WatchedCount(Tensor):
    """An item count that notes whether anybody computes with it, or reads it."""

    record: CountRecord

    @classmethod
    def of(cls, count: Tensor, record: CountRecord | None = None) -> WatchedCount:
        """Return a count that is watched."""
        watched: WatchedCount = count.as_subclass(cls)
        watched.record = CountRecord() if record is None else record
        return watched

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do as with any tensor, and note what is more than handing it on."""
        del types
        name, given = func.__name__, dict(kwargs or {})
        watched = [value for value in (*args, *given.values()) if isinstance(value, WatchedCount)]
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*map(_plain, args), **{key: _plain(value) for key, value in given.items()})
            if name in _CARRYING and watched and isinstance(result, Tensor):
                return WatchedCount.of(result, watched[0].record)
        for count in watched:
            count.record.used = count.record.used or name not in _DESCRIBING
        return result


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, WatchedCount) else value


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run a model for a look: no gradient, dropout or statistics; generators and modes are as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    cards = sorted({parameter.device.index or 0 for parameter in model.parameters() if parameter.device.type == "cuda"})
    with torch.random.fork_rng(cards), torch.no_grad():
        to_evaluation(model)
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training

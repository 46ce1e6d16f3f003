"""Whether a loss compares position i with label i + 1, as those of causal models do: then the first label is no target.

What is known of a model by its class is a guess; a loss tells. `Shift` owns what is known. A trainer has one for its
model, which counting items, evaluation and metrics share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surestep.optional import require
from surestep.runtime.nested import leaves

IGNORED = -100
# How far a loss may be from what it is taken for: half precision rounds so much.
_TOLERANCE = 5e-3
# How much nearer one reading must be than the other, and how far apart two readings tell anything at all.
_CLEARLY, _APART = 10, 1e-5


@dataclass(slots=True)
class Shift:
    """Whether labels are shifted: as declared, or guessed until a loss has told.

    `blind` says that the guess stands on nothing, not even on the model's class.
    """

    shifted: bool = False
    guessed: bool = False
    blind: bool = False

    @classmethod
    def of(cls, model: Any) -> Shift:
        """Return what a model declares by `shifts_labels`, else what is known of its class."""
        declared = getattr(model, "shifts_labels", None)
        if declared is not None:
            return cls(bool(declared))
        # The labels of a decoder beside an encoder are its targets as they are.
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            return cls()
        causal = _is_causal(model)
        return cls(bool(causal), guessed=True, blind=causal is None)

    def settle(self, shifted: bool) -> None:
        """Take what a loss has told."""
        self.shifted, self.guessed, self.blind = shifted, False, False

    def accept(self) -> None:
        """Go by the guess although it stands on nothing, which was said."""
        self.blind = False

    def learn(self, predictions: Any, labels: Any, loss: Any, items: Any = None) -> None:
        """Look at the loss of a batch, where this is a guess; `items` is what its sum was divided by, if it was.

        Only the first loss that is finite is looked at.
        """
        if not self.guessed or not may_shift(labels) or not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        logits = next((leaf for leaf in leaves(predictions) if isinstance(leaf, Tensor)), None)
        if logits is None or not _may_tell(logits, labels) or not loss.isfinite():
            return
        self.settle(shift_of(logits, labels, loss.detach(), expected=self.shifted, items=items))


def shift_of(logits: Tensor, labels: Tensor, loss: Tensor, *, expected: bool, items: Any = None) -> bool:
    """Say whether a loss compares position i with label i + 1, told by its size: `expected` where that tells nothing.

    `logits` of shape (samples, positions, classes) and whole-number `labels` of (samples, positions) are those that
    the loss is the mean over; with `items` it is their sum divided by that number.
    """
    if not _may_tell(logits, labels) or loss.numel() != 1:
        return expected
    given = float(loss) * (1 if items is None else float(items))
    aligned, shifted = (_distance(given, _loss(logits, labels, shifted, items is None)) for shifted in (False, True))
    nearer, farther = sorted((aligned, shifted))
    if nearer <= _TOLERANCE and farther > max(_CLEARLY * nearer, _APART):
        return shifted < aligned
    return expected


def may_shift(labels: Any) -> bool:
    """Say whether a loss may compare position i with label i + 1: there are several a sample, and whole numbers."""
    if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.shape[1] < 2:
        return False
    return not labels.dtype.is_floating_point and labels.dtype != torch.bool


def _may_tell(logits: Tensor, labels: Tensor) -> bool:
    if logits.ndim != 3 or logits.shape[:-1] != labels.shape or not may_shift(labels):
        return False
    # Labels that are no classes of these logits are of another kind of loss.
    return bool((((labels >= 0) & (labels < logits.shape[-1])) | (labels == IGNORED)).all())


def _loss(logits: Tensor, labels: Tensor, shifted: bool, mean: bool) -> float:
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    wide = logits.detach().flatten(0, 1)
    wide = wide if wide.element_size() > 2 else wide.float()
    how = "mean" if mean else "sum"
    return float(nn.functional.cross_entropy(wide, labels.flatten(), ignore_index=IGNORED, reduction=how))


def _distance(one: float, other: float) -> float:
    """Return how far two numbers are apart, as a share of the larger; infinite where one is NaN."""
    apart = abs(one - other) / max(abs(one), abs(other), 1e-30)
    return math.inf if math.isnan(apart) else apart


def _is_causal(model: Any) -> bool | None:
    """Say whether a model of transformers shifts, as its class and its kind of loss tell; None of any other model."""
    if getattr(model, "loss_type", None) is not None:
        return getattr(getattr(model, "loss_function", None), "__name__", "") == "ForCausalLMLoss"
    kinds = {base.__name__ for base in type(model).__mro__ if base.__module__.startswith("transformers.")}
    if not kinds:
        return None
    # Heads of before there were kinds of losses (GPT2LMHeadModel), and classes of the user's that are one of its own.
    auto = require("transformers.models.auto.modeling_auto", "telling which of its models shift their labels")
    return not kinds.isdisjoint(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())

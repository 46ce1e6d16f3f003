"""The pair that every loss here returns: a sum over what it counts, and the weight of what it counted.

A mean cannot be put together from the means of parts; a sum and a weight can. Who returns a pair leaves the division to
the trainer, which divides by the weight of the whole step: all micro-batches, all ranks. docs/loss.md has the algebra.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from surestep.errors import ModelError

# The name of a pair that has none.
ALONE = ""


class LossSum(NamedTuple):
    """A loss as `(sum, weight)`: a scalar with its graph, and what it is a sum over.

    The weight is a number or a scalar tensor, on any device; it takes no gradient. It may be known only after the
    forward pass, and may be 0: then the sum counts nothing.
    """

    sum: Tensor
    weight: Tensor | float

    def mean(self) -> Tensor:
        """Return the sum over the weight, 0 where nothing was counted."""
        dtype = torch.promote_types(self.sum.dtype, torch.float32)
        weight = torch.as_tensor(self.weight, device=self.sum.device).detach().to(dtype)
        return self.sum / torch.where(weight == 0, torch.inf, weight)

    def detach(self) -> LossSum:
        """Return the pair without its graph."""
        weight = self.weight.detach() if isinstance(self.weight, Tensor) else self.weight
        return LossSum(self.sum.detach(), weight)


def weights_of_parts(weights: Any) -> dict[str, Tensor | float]:
    """Return weights that are known before the loss by name: one number, or several by the names of the parts."""
    named = weights if isinstance(weights, Mapping) else {ALONE: weights}
    for name, weight in named.items():
        if not _is_scalar(weight):
            what = f"The weight of the loss '{name}'" if name else "The weight of the loss"
            raise ModelError(
                f"{what} is {_described(weight)}. Return a number or a scalar tensor for every micro-batch, or a dict "
                "of these with the names of the loss's parts."
            )
    return {str(name): weight for name, weight in named.items()}


def pairs_of(loss: Any, mean_weight: float = 1.0) -> dict[str, LossSum]:
    """Return a loss that is no tensor as named pairs: a pair, or a mapping whose values are pairs or means.

    A mean in a mapping weighs `mean_weight`; with 1, means are divided by the number of micro-batches. Shapes are
    looked at, and no value is read.
    """
    if isinstance(loss, Mapping):
        if not loss:
            raise ModelError("The loss is an empty dict. Return a pair (sum, weight), or named pairs: {'main': ...}.")
        return {str(name): _pair(value, str(name), mean_weight) for name, value in loss.items()}
    return {ALONE: _pair(loss, ALONE, mean_weight)}


def _pair(value: Any, name: str, mean_weight: float) -> LossSum:
    if isinstance(value, Tensor) and value.numel() == 1 and name:
        return LossSum(value.reshape(()) * mean_weight, mean_weight)
    if isinstance(value, tuple) and len(value) == 2 and _is_scalar(value[0], Tensor) and _is_scalar(value[1]):
        total, weight = value
        return LossSum(total.reshape(()), weight.reshape(()).detach() if isinstance(weight, Tensor) else float(weight))
    what = f"The loss '{name}'" if name else "The loss"
    raise ModelError(
        f"{what} is {_described(value)}. Return a scalar tensor, which is taken as a mean, a pair (sum, weight) of "
        "scalars, or a dict of these; compute_loss returns outputs beside it only where return_outputs is True."
    )


def _is_scalar(value: Any, kinds: Any = (Tensor, int, float)) -> bool:
    return isinstance(value, kinds) and (not isinstance(value, Tensor) or value.numel() == 1)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(_described(part) for part in value)}"
    return f"of type {type(value).__name__}"

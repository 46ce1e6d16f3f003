"""What the loss families read: predictions among a model's outputs, and labels that fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from surestep.errors import ArgumentError, DataError, ModelError

IGNORED = -100


def predicted(outputs: Any, key: str) -> Tensor:
    """Return the tensor under `key` of a mapping or object, the first of a tuple, or a tensor itself."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        found = outputs.get(key)
    elif isinstance(outputs, tuple | list):
        found = outputs[0] if outputs else None
    else:
        found = getattr(outputs, key, None)
    if isinstance(found, Tensor):
        return found
    names = ", ".join(str(name) for name in outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
    raise ModelError(
        f"The loss looks for '{key}' in the model's outputs and finds {names}. Return a tensor under that name, or "
        "name yours: key='...'."
    )


def labels_given(labels: Any, loss: object) -> Tensor:
    """Return the labels, which must be there."""
    if isinstance(labels, Tensor):
        return labels
    raise DataError(
        f"{type(loss).__name__} needs 'labels' as a tensor and got {type(labels).__name__}. Let the collator put them "
        "into the batch under the name 'labels'."
    )


def check_classes(logits: Tensor, labels: Tensor, ignored: int | None = None) -> None:
    """Check class labels against logits whose last dimension are the classes.

    Whether labels are in range is read on the CPU alone: elsewhere it would wait for the device, which checks by itself
    where it picks a class.
    """
    if logits.shape[:-1] != labels.shape or logits.dim() == 0:
        raise DataError(
            f"logits are of shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)}: give one label for "
            "each row of logits, which has a score for every class."
        )
    if labels.dtype.is_floating_point or labels.dtype in (torch.bool, torch.complex64):
        raise DataError(f"labels are {labels.dtype}: class labels are whole numbers. Convert them with .long().")
    if labels.device.type != "cpu" or labels.numel() == 0:
        return
    counted = labels if ignored is None else labels[labels != ignored]
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < logits.shape[-1]:
        wrong = counted[(counted < 0) | (counted >= logits.shape[-1])][0]
        raise DataError(
            f"A label is {int(wrong)}, and the logits have {logits.shape[-1]} classes: labels run from 0 to "
            f"{logits.shape[-1] - 1}{'' if ignored is None else f', and {ignored} is not counted'}. Let the model have "
            "more classes, or number the labels anew."
        )


def same_shape(predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions and targets in one shape; a last dimension of 1 that only one of them has is dropped."""
    one, other = predictions, labels
    if one.dim() == other.dim() + 1 and one.shape[-1] == 1:
        one = one.squeeze(-1)
    elif other.dim() == one.dim() + 1 and other.shape[-1] == 1:
        other = other.squeeze(-1)
    if one.shape != other.shape:
        raise DataError(
            f"Predictions are of shape {tuple(predictions.shape)} and labels of shape {tuple(labels.shape)}: they must "
            "be the same. Broadcasting one to the other would compare every sample with every label."
        )
    return one, other.to(one.dtype)


def by_class(weights: Tensor | Sequence[float] | None, logits: Tensor, setting: str) -> Tensor | None:
    """Return one weight for each class, on the logits' device and in their dtype."""
    if weights is None:
        return None
    values = torch.as_tensor(weights, dtype=logits.dtype, device=logits.device)
    if values.shape != logits.shape[-1:]:
        raise ArgumentError(
            f"{setting} has shape {tuple(values.shape)}, and the logits have {logits.shape[-1]} classes: give one "
            "number for each class."
        )
    return values


def weights_of(weights: Tensor | Sequence[float], labels: Tensor) -> Tensor:
    """Return the weight of each label, which names a class, in the widest numbers that there are."""
    values = torch.as_tensor(weights)
    values = values if values.device.type == "mps" else torch.as_tensor(weights, dtype=torch.float64)
    return values[labels.to(values.device)]


def in_float32(values: Tensor) -> Tensor:
    """Return values as float32 where they come in half precision: a sum of many would lose them."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values

"""Reading what a model returned: a mapping, a tuple, or an object with attributes.

This runs for every batch, and most outputs are a dict: `dict | Mapping` spares them the look into an abstract class.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from surestep.errors import ModelError


def loss_of(outputs: Any, inputs: Any) -> Any:
    """Return the loss among a model's outputs; `inputs` are named in the error where there is none."""
    if isinstance(outputs, dict | Mapping):
        loss = outputs.get("loss")
    elif isinstance(outputs, tuple | list):
        loss = outputs[0] if outputs else None
    else:
        loss = getattr(outputs, "loss", None)
    if loss is None:
        given = ", ".join(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise ModelError(
            f"The model returned no loss, only {_described(outputs)}; it was given {given}. Give it its labels (under "
            "the name its forward uses, as numbers: text is left out), let it return a dict with 'loss', pass "
            "compute_loss_func, or override compute_loss."
        )
    return loss


def predictions_of(outputs: Any, ignored: Collection[str], *, with_loss: bool) -> tuple[Any, ...]:
    """Return a model's outputs without the loss and without the names in `ignored`, as a tuple.

    `with_loss` says whether a tuple begins with the loss.
    """
    if isinstance(outputs, dict | Mapping):
        left_out = {*ignored, "loss"} if with_loss else set(ignored)
        return tuple([value for name, value in outputs.items() if name not in left_out])
    if isinstance(outputs, tuple | list):
        return tuple(outputs[1:] if with_loss else outputs)
    if isinstance(outputs, Tensor) or not hasattr(outputs, "__dict__"):
        return (outputs,)
    return predictions_of(vars(outputs), ignored, with_loss=with_loss)


def _described(outputs: Any) -> str:
    if isinstance(outputs, Mapping):
        return "the keys " + ", ".join(str(name) for name in outputs) if outputs else "an empty mapping"
    return f"an object of type {type(outputs).__name__}"

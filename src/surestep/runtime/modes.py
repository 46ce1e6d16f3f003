"""Switching a model to evaluation without harm to its training."""

from __future__ import annotations

from torch import nn


def to_evaluation(model: nn.Module) -> None:
    """Switch every module to evaluation mode, but for 4-bit layers on the CPU.

    Those of bitsandbytes repack their weights when they run in evaluation mode, and let no gradient through from then
    on. Their mode has no other effect.
    """
    model.eval()
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if weight is not None and hasattr(weight, "quant_state") and weight.device.type == "cpu":
            module.training = True

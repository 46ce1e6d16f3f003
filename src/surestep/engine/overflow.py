"""Finding where a model leaves the range of its numbers: a record of the last modules, and a stop at the first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from surestep.errors import ModelError
from surestep.runtime.nested import leaves

_FRAMES = 21


class OverflowWatch:
    """Notes the smallest and largest magnitude of what goes in and out of every module.

    Raises `ModelError` at the first output that is not finite, with the last modules and their figures. Reads the
    device for every module, so it is for debugging only (`debug="underflow_overflow"`).
    """

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name or type(model).__name__ for name, module in model.named_modules()}
        self._frames: deque[str] = deque(maxlen=_FRAMES)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the model inside the block."""
        handles = [module.register_forward_hook(self._look) for module in self._names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, module: nn.Module, inputs: Any, output: Any) -> None:
        name = self._names[module]
        figures = [f"{kind}: {_magnitudes(values)}" for kind, values in (("in", inputs), ("out", output))]
        weights = [f"{label}: {_magnitudes(value)}" for label, value in module.named_parameters(recurse=False)]
        self._frames.append(f"{name} ({type(module).__name__})  " + "  ".join([*weights, *figures]))
        if not _all_finite(output):
            raise ModelError(
                f"The output of module '{name}' is not finite. The last modules, with smallest and largest "
                "magnitudes:\n  " + "\n  ".join(self._frames) + "\nbf16 has a wider range than fp16; a lower "
                "learning_rate, or a warm-up, keeps values smaller."
            )


def _tensors(data: Any) -> list[torch.Tensor]:
    return [leaf for leaf in leaves(data) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _all_finite(data: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(data))


def _magnitudes(data: Any) -> str:
    found = [tensor.detach().abs() for tensor in _tensors(data) if tensor.numel()]
    if not found:
        return "-"
    low, high = min(float(tensor.min()) for tensor in found), max(float(tensor.max()) for tensor in found)
    return f"{low:.2e}..{high:.2e}"

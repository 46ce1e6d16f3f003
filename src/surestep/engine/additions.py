"""What is added to a model for training: compilation and embedding noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from surestep.errors import ArgumentError


def compile_model(model: nn.Module, *, backend: str | None, mode: str | None) -> nn.Module:
    """Return the model compiled by `torch.compile`; `backend` defaults to inductor."""
    compiled: nn.Module = torch.compile(model, backend=backend or "inductor", mode=mode)  # type: ignore[assignment]
    return compiled


@contextmanager
def noisy_embeddings(model: Any, alpha: float) -> Iterator[None]:
    """Add uniform noise to the input embeddings while training inside the block (NEFTune, Jain et al. 2023).

    The noise lies within `alpha / sqrt(tokens * dim)` on either side, as in the original.
    """
    embed = getattr(model, "get_input_embeddings", None)
    if embed is None:
        raise ArgumentError(
            f"neftune_noise_alpha is {alpha}, but {type(model).__name__} has no get_input_embeddings. Define it to "
            "return the embedding module, or leave the setting out."
        )

    def add_noise(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        size = torch.tensor(output.size(1) * output.size(2))
        bound = alpha / torch.sqrt(size)
        return output + torch.zeros_like(output).uniform_(-float(bound), float(bound))

    handle = embed().register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()

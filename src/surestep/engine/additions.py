"""What is added to a model for training: compilation, fused kernels and embedding noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from surestep.errors import ArgumentError
from surestep.optional import require


def compile_model(model: nn.Module, *, backend: str | None, mode: str | None) -> nn.Module:
    """Return the model compiled by `torch.compile`; `backend` defaults to inductor."""
    compiled: nn.Module = torch.compile(model, backend=backend or "inductor", mode=mode)  # type: ignore[assignment]
    return compiled


def apply_liger(model: Any, settings: Mapping[str, bool] | None) -> None:
    """Put the fused kernels of liger-kernel into a model of transformers, for good; `settings` choose among them."""
    kernels = require("liger_kernel.transformers", "use_liger_kernel=True")
    if getattr(model, "config", None) is None:
        raise ArgumentError(
            f"use_liger_kernel is True, but {type(model).__name__} has no config: the kernels are for models of "
            "transformers. Leave the setting out."
        )
    kernels._apply_liger_kernel_to_instance(model=model, **(settings or {}))


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

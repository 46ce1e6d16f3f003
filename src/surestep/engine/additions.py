"""What is added to a model for training: compilation, fused kernels and embedding noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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


def neftune_post_forward_hook(module: nn.Module, input: Any, output: Tensor) -> Tensor:  # noqa: A002, ARG001 (torch's)
    """Add uniform noise to the output of an embedding that is trained, as its `neftune_noise_alpha` says."""
    if not module.training:
        return output
    alpha: Any = module.neftune_noise_alpha
    bound = float(alpha / torch.sqrt(torch.tensor(output.size(1) * output.size(2))))
    return output + torch.zeros_like(output).uniform_(-bound, bound)


def activate_neftune(model: Any, neftune_noise_alpha: float, accelerator: Any = None) -> RemovableHandle:
    """Add noise to the model's input embeddings from now on (NEFTune, Jain et al. 2023); return the handle to end it.

    The noise lies within `neftune_noise_alpha / sqrt(tokens * dim)` on either side, as in the original.
    """
    embeddings = _input_embeddings(model, neftune_noise_alpha, accelerator)
    embeddings.neftune_noise_alpha = neftune_noise_alpha
    handle: RemovableHandle = embeddings.register_forward_hook(neftune_post_forward_hook)
    return handle


def deactivate_neftune(model: Any, hook_handle: RemovableHandle, accelerator: Any = None) -> None:
    """End what `activate_neftune` began."""
    hook_handle.remove()
    vars(_input_embeddings(model, None, accelerator)).pop("neftune_noise_alpha", None)


def _input_embeddings(model: Any, alpha: float | None, accelerator: Any) -> Any:
    inner = model if accelerator is None else accelerator.unwrap_model(model)
    embed = getattr(inner, "get_input_embeddings", None)
    if embed is None:
        raise ArgumentError(
            f"neftune_noise_alpha is {alpha}, but {type(inner).__name__} has no get_input_embeddings. Define it to "
            "return the embedding module, or leave the setting out."
        )
    return embed()


@contextmanager
def noisy_embeddings(model: Any, alpha: float) -> Iterator[None]:
    """Have the input embeddings make noise inside the block: `activate_neftune`, and its end also after an error."""
    handle = activate_neftune(model, alpha)
    try:
        yield
    finally:
        deactivate_neftune(model, handle)

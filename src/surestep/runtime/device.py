"""Which device a process trains on, and what that device can do."""

from __future__ import annotations

from typing import Any

import torch

from surestep.runtime.nested import map_structure
from surestep.runtime.world import World


def choose_device(world: World, *, use_cpu: bool = False) -> torch.device:
    """Return the device of this process: its own CUDA card, else Apple's GPU, else the CPU."""
    if use_cpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", world.local_rank % torch.cuda.device_count())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def supports_bf16(device: torch.device) -> bool:
    """Say whether the device computes in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type in {"cpu", "mps"}


def supports_float8(device: torch.device) -> bool:
    """Say whether the device multiplies matrices in float8 (NVIDIA GPUs from compute capability 8.9 on)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def set_tf32(enabled: bool) -> None:
    """Let float32 matrix products and convolutions on CUDA use TF32, or forbid it; other devices have none."""
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def empty_cache(device: torch.device) -> None:
    """Give unused memory of the device's allocator back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def to_device(data: Any, device: torch.device, non_blocking: bool = False) -> Any:
    """Move every tensor of a nested structure; containers keep their type, anything else is returned as it is.

    With `non_blocking` the host goes on while pinned memory is copied.
    """
    if type(data) is dict:
        # The usual batch, done without a Python call for each tensor: this runs for every micro-batch.
        moved = {}
        for key, value in data.items():
            if isinstance(value, torch.Tensor):
                moved[key] = value.to(device, non_blocking=non_blocking)
            else:
                moved[key] = to_device(value, device, non_blocking)
        return moved

    def move(leaf: Any) -> Any:
        return leaf.to(device, non_blocking=non_blocking) if isinstance(leaf, torch.Tensor) else leaf

    return map_structure(move, data)

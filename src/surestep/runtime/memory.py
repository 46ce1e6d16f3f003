"""Errors that mean that memory ran out."""

from __future__ import annotations

import torch

from surestep.errors import RankError, SurestepError

# What backends say that raise no OutOfMemoryError.
_SAYINGS = ("out of memory", "can't allocate memory", "CUDNN_STATUS_NOT_SUPPORTED")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, here or on another rank."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, SurestepError):
        return isinstance(error, RankError) and error.out_of_memory
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)

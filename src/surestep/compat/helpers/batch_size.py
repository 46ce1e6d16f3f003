"""The original's decorator that looks for a batch size that fits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch

from surestep.runtime.device import choose_device
from surestep.runtime.world import current_world
from surestep.trainer.batch_size import find_batch_size


def find_executable_batch_size(
    function: Callable[..., Any] | None = None,
    starting_batch_size: int = 128,
    auto_find_batch_size: bool = False,
) -> Any:
    """Return `function` with its batch size found, or with `starting_batch_size` where it is not to be looked for.

    A function to be tried takes the batch size first, and is called with a tenth less after each memory error. Without
    a `function` this is a decorator. Nothing is reset between the attempts; `auto_find_batch_size` of the trainer does.
    """
    if function is None:
        return partial(
            find_executable_batch_size,
            starting_batch_size=starting_batch_size,
            auto_find_batch_size=auto_find_batch_size,
        )
    if not auto_find_batch_size:
        return partial(function, batch_size=starting_batch_size)

    @wraps(function)
    def searched(*args: Any, **kwargs: Any) -> Any:
        device: torch.device = choose_device(current_world())
        return find_batch_size(
            lambda size: function(size, *args, **kwargs), starting_batch_size, device, reset=lambda: None
        )

    return searched

"""The global random generators of a process: seed them, read them out, put them back."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch

from surestep.errors import ArgumentError

# NumPy's global generator takes 32 bits, the narrowest of the three.
_SEED_LIMIT = 2**32
# What the vendors' libraries read before they choose an algorithm.
_DETERMINISM_VARIABLES = {
    "CUDA_LAUNCH_BLOCKING": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "ASCEND_LAUNCH_BLOCKING": "1",
    "HCCL_DETERMINISTIC": "1",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
}


def seed_everything(seed: int) -> None:
    """Seed the generators of python, NumPy and torch on every device, as the original's `set_seed` does.

    Raises:
        ArgumentError: `seed` is outside 0 .. 2**32 - 1, which NumPy's generator does not take.
    """
    if not 0 <= seed < _SEED_LIMIT:
        raise ArgumentError(f"seed={seed} is out of range. Write a whole number from 0 to {_SEED_LIMIT - 1}.")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seed everything; with `deterministic`, torch raises where it has no algorithm that gives the same bits again.

    The original's name and signature. `enable_full_determinism` also tells the vendors' libraries.
    """
    seed_everything(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True)


def enable_full_determinism(seed: int, warn_only: bool = False) -> None:
    """Seed everything and let torch use algorithms that give the same bits on every run.

    Where torch has no such algorithm it raises, or warns with `warn_only`. The environment variables act on libraries
    that read them later: call this before the first work on a device.
    """
    seed_everything(seed)
    os.environ.update(_DETERMINISM_VARIABLES)
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def capture_random_state() -> dict[str, Any]:
    """Return the state of every global generator as plain data and tensors.

    The keys are `python`, `numpy` and `cpu`, and one for each kind of accelerator that this process has woken: `cuda`
    and `xpu` (one tensor a card) and `mps`. A device that was never used has drawn nothing and is left asleep.
    """
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "cpu": torch.get_rng_state(),
    }
    for name, module in _cards().items():
        state[name] = module.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def default_generators(device: torch.device) -> list[torch.Generator]:
    """Return torch's generators that work on a device draws from: that of the host, and the device's own."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    return generators


def host_random() -> tuple[object, ...]:
    """Return where python's and NumPy's generators stand, to be compared."""
    state: Any = np.random.get_state(legacy=False)
    numbers = state["state"]
    return random.getstate(), numbers["key"].tobytes(), numbers["pos"], state["has_gauss"], state["gauss"]


def restore_random_state(state: Mapping[str, Any]) -> list[str]:
    """Put the generators back to a captured `state`; return a sentence for each part that could not be restored.

    An empty list means an exact restoration. Other machines lack devices: that is told, not raised, because the caller
    knows whether it matters.
    """
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    problems = [
        problem
        for name, module in {"cuda": torch.cuda, "xpu": torch.xpu}.items()
        if name in state and (problem := _restore_cards(name, module, state[name]))
    ]
    if "mps" in state:
        if torch.backends.mps.is_available():
            torch.mps.set_rng_state(state["mps"])
        else:
            problems.append("the state of an mps generator was saved, and this machine has no mps device")
    return problems


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Put every global generator back after the body, whatever it drew."""
    state = capture_random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def _cards() -> dict[str, ModuleType]:
    """Return the kinds of accelerator that this process has woken."""
    return {name: module for name, module in {"cuda": torch.cuda, "xpu": torch.xpu}.items() if module.is_initialized()}


def _restore_cards(name: str, module: ModuleType, states: Any) -> str | None:
    """Restore one tensor a card; a lone tensor is the state of the current card."""
    present = module.device_count() if module.is_available() else 0
    if isinstance(states, torch.Tensor):
        if present:
            module.set_rng_state(states)
        return None if present else f"the state of a {name} generator was saved, and this machine has no {name} device"
    for card, saved in enumerate(states[:present]):
        module.set_rng_state(saved, card)
    if len(states) == present:
        return None
    return f"the states of {len(states)} {name} generators were saved, and this machine has {present} {name} devices"

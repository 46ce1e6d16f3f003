"""The factors behind the schedules: pure functions from the step to a share of the full learning rate.

All are plain functions of numbers, so that a schedule is data: it can be copied, sent to a process and saved. The
values are those of the original, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping


def constant(_step: int) -> float:
    """Return 1 at every step."""
    return 1.0


def warmup(step: int, *, num_warmup_steps: int) -> float:
    """Return a linear rise from 0 to 1 over the warm-up, then 1."""
    return step / max(1, num_warmup_steps) if step < num_warmup_steps else 1.0


def linear(step: int, *, num_warmup_steps: int, num_training_steps: int) -> float:
    """Return the warm-up, then a linear fall to 0."""
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))


def cosine(
    step: int, *, num_warmup_steps: int, num_training_steps: int, num_cycles: float, min_lr_rate: float = 0.0
) -> float:
    """Return the warm-up, then `num_cycles` cosine waves between 1 and `min_lr_rate`."""
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    progress = (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)
    return max(0.0, _wave(progress, num_cycles) * (1 - min_lr_rate) + min_lr_rate)


def _wave(progress: float, num_cycles: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * num_cycles * 2.0 * progress))


def cosine_with_restarts(step: int, *, num_warmup_steps: int, num_training_steps: int, num_cycles: int) -> float:
    """Return the warm-up, then `num_cycles` half waves from 1 to 0."""
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    progress = (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)
    if progress >= 1.0:
        return 0.0
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * progress) % 1.0))))


def polynomial(
    step: int, *, num_warmup_steps: int, num_training_steps: int, lr_end: float, power: float, lr_init: float
) -> float:
    """Return the warm-up, then a polynomial fall from the rate `lr_init` to the rate `lr_end`."""
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    if step > num_training_steps:
        return lr_end / lr_init
    # A run that is all warm-up has no step left to decay over, and stands at its end here.
    decay_steps = num_training_steps - num_warmup_steps
    remaining = 1 - (step - num_warmup_steps) / decay_steps if decay_steps else 0.0
    return float((lr_init - lr_end) * remaining**power + lr_end) / lr_init


def inverse_sqrt(step: int, *, num_warmup_steps: int, timescale: int) -> float:
    """Return the warm-up, then a fall with one over the root of the step."""
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    return 1.0 / math.sqrt((step + timescale - num_warmup_steps) / timescale)


def cosine_from_first_step(
    step: int,
    *,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float,
    min_lr_rate: float,
    warmup_lr_rate: float | None,
) -> float:
    """Return a cosine schedule one step ahead of `cosine`, so that no step trains at 0."""
    if step < num_warmup_steps:
        if warmup_lr_rate is None:
            return (step + 1.0) / max(1.0, num_warmup_steps)
        return warmup_lr_rate + (1.0 - warmup_lr_rate) * step / max(1, num_warmup_steps - 1)
    progress = (step - num_warmup_steps + 1.0) / max(1.0, num_training_steps - num_warmup_steps)
    return max(0.0, _wave(progress, num_cycles) * (1 - min_lr_rate) + min_lr_rate)


# Shapes of the warm-up, from 0 to 1, by `warmup_type`; `progress` runs from 0 to 1.
RISES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: 0.5 * (1.0 - math.cos(math.pi * progress)),
    "1-sqrt": lambda progress: 1.0 - math.sqrt(1.0 - progress),
}
# Shapes of the decay, from 1, by `decay_type`; the second number is the cosine's waves.
FALLS: Mapping[str, Callable[[float, float], float]] = {
    "linear": lambda progress, _: 1.0 - progress,
    "cosine": _wave,
    "1-sqrt": lambda progress, _: 1.0 - math.sqrt(progress),
}


def warmup_stable_decay(
    step: int,
    *,
    num_warmup_steps: int,
    num_stable_steps: int,
    num_decay_steps: int,
    warmup_type: str,
    decay_type: str,
    min_lr_ratio: float,
    num_cycles: float,
) -> float:
    """Return a rise from `min_lr_ratio` to 1, a stretch at 1, and a fall back to `min_lr_ratio`."""
    decay_start = num_warmup_steps + num_stable_steps
    if step < num_warmup_steps:
        share = RISES[warmup_type](step / max(1, num_warmup_steps))
    elif step < decay_start:
        return 1.0
    elif step < decay_start + num_decay_steps:
        share = FALLS[decay_type]((step - num_warmup_steps - num_stable_steps) / max(1, num_decay_steps), num_cycles)
    else:
        return min_lr_ratio
    return max(0.0, share * (1.0 - min_lr_ratio) + min_lr_ratio)

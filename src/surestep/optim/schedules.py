"""Learning rate schedules: each a pure function of the step, under the original's names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from surestep.config.enums import SchedulerType
from surestep.errors import ArgumentError
from surestep.logs import get_logger
from surestep.optim import curves
from surestep.optim.greedy import GreedyLR
from surestep.optim.layerwise import LayerWiseDummyOptimizer, LayerWiseDummyScheduler

_logger = get_logger(__name__)
_RATE = itemgetter("lr")


class StepSchedule(LambdaLR):
    """A `LambdaLR` that costs two or three Python calls a step, however many groups there are.

    Rates and `state_dict` are those of `LambdaLR`. The first two steps, where torch checks the order of the calls, and
    learning rates that are tensors go torch's way.
    """

    def step(self, epoch: int | None = None) -> None:
        """Set each group's rate for the next step; `epoch` sets the step instead, as in torch."""
        groups = self.optimizer.param_groups
        if self._step_count < 2 or epoch is not None or Tensor in map(type, map(_RATE, groups)):
            return super().step(epoch)
        self._step_count += 1
        self.last_epoch += 1
        shared = self.lr_lambdas[0]
        factor = shared(self.last_epoch)
        self._last_lr = rates = []
        for group, base, curve in zip(groups, self.base_lrs, self.lr_lambdas, strict=True):
            rate = base * (factor if curve is shared else curve(self.last_epoch))
            group["lr"] = rate
            rates.append(rate)
        return None


def get_constant_schedule(optimizer: Optimizer, last_epoch: int = -1) -> StepSchedule:
    """Return a schedule that keeps the optimizer's rates."""
    return StepSchedule(optimizer, curves.constant, last_epoch)


def get_constant_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, last_epoch: int = -1
) -> StepSchedule:
    """Return a linear rise from 0, then the optimizer's rates."""
    return StepSchedule(optimizer, partial(curves.warmup, num_warmup_steps=num_warmup_steps), last_epoch)


def get_linear_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> StepSchedule:
    """Return a linear rise from 0, then a linear fall to 0 at `num_training_steps`."""
    curve = partial(curves.linear, num_warmup_steps=num_warmup_steps, num_training_steps=num_training_steps)
    return StepSchedule(optimizer, curve, last_epoch)


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5, last_epoch: int = -1
) -> StepSchedule:
    """Return a linear rise from 0, then `num_cycles` waves of a cosine; half a wave falls to 0."""
    curve = partial(
        curves.cosine, num_warmup_steps=num_warmup_steps, num_training_steps=num_training_steps, num_cycles=num_cycles
    )
    return StepSchedule(optimizer, curve, last_epoch)


def get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1, last_epoch: int = -1
) -> StepSchedule:
    """Return a linear rise from 0, then `num_cycles` falls of a half cosine, each from the full rate."""
    curve = partial(
        curves.cosine_with_restarts,
        num_warmup_steps=num_warmup_steps,
        num_training_steps=num_training_steps,
        num_cycles=num_cycles,
    )
    return StepSchedule(optimizer, curve, last_epoch)


def get_polynomial_decay_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
) -> StepSchedule:
    """Return a linear rise from 0, then a fall to the rate `lr_end` with the given power.

    Raises:
        ArgumentError: `lr_end` is not below the optimizer's rate.
    """
    lr_init = float(optimizer.defaults["lr"])
    if lr_init <= lr_end:
        raise ArgumentError(
            f"lr_end is {lr_end}, the learning rate {lr_init}: write an lr_end below the learning rate."
        )
    curve = partial(
        curves.polynomial,
        num_warmup_steps=num_warmup_steps,
        num_training_steps=num_training_steps,
        lr_end=lr_end,
        power=power,
        lr_init=lr_init,
    )
    return StepSchedule(optimizer, curve, last_epoch)


def get_inverse_sqrt_schedule(
    optimizer: Optimizer, num_warmup_steps: int, timescale: int | None = None, last_epoch: int = -1
) -> StepSchedule:
    """Return a linear rise from 0, then a fall with one over the root of the step (in units of `timescale` steps).

    `timescale` is the number of warm-up steps unless given, or 10,000 without a warm-up.
    """
    timescale = (num_warmup_steps or 10_000) if timescale is None else timescale
    curve = partial(curves.inverse_sqrt, num_warmup_steps=num_warmup_steps, timescale=timescale)
    return StepSchedule(optimizer, curve, last_epoch)


def get_cosine_with_min_lr_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> StepSchedule:
    """Return the cosine schedule falling to the rate `min_lr`, or to the share `min_lr_rate` of the full one.

    Raises:
        ArgumentError: Not exactly one of `min_lr` and `min_lr_rate` is given.
    """
    curve = partial(
        curves.cosine,
        num_warmup_steps=num_warmup_steps,
        num_training_steps=num_training_steps,
        num_cycles=num_cycles,
        min_lr_rate=_min_lr_rate(optimizer, min_lr, min_lr_rate),
    )
    return StepSchedule(optimizer, curve, last_epoch)


def get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> StepSchedule:
    """Return a cosine schedule that starts above 0: at the share `warmup_lr_rate`, or one step into the rise.

    Raises:
        ArgumentError: Not exactly one of `min_lr` and `min_lr_rate` is given.
    """
    curve = partial(
        curves.cosine_from_first_step,
        num_warmup_steps=num_warmup_steps,
        num_training_steps=num_training_steps,
        num_cycles=num_cycles,
        min_lr_rate=_min_lr_rate(optimizer, min_lr, min_lr_rate),
        warmup_lr_rate=warmup_lr_rate,
    )
    return StepSchedule(optimizer, curve, last_epoch)


def _min_lr_rate(optimizer: Optimizer, min_lr: float | None, min_lr_rate: float | None) -> float:
    """Return the lowest rate as a share of the full one, from whichever of the two was given."""
    if min_lr is not None and min_lr_rate is None:
        return min_lr / float(optimizer.defaults["lr"])
    if min_lr_rate is not None and min_lr is None:
        return min_lr_rate
    raise ArgumentError(
        f"min_lr is {min_lr} and min_lr_rate is {min_lr_rate}: write exactly one of them in lr_scheduler_kwargs."
    )


def get_wsd_schedule(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_decay_steps: int,
    num_training_steps: int | None = None,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> StepSchedule:
    """Return a rise from the share `min_lr_ratio`, a stretch at the full rate and a fall back to the share.

    The stretch is what warm-up and decay leave of `num_training_steps`, unless `num_stable_steps` is given.
    `warmup_type` and `decay_type` are 'linear', 'cosine' or '1-sqrt'.

    Raises:
        ArgumentError: An unknown type, or nothing that gives the length of the stretch.
    """
    for setting, value, shapes in (
        ("warmup_type", warmup_type, curves.RISES),
        ("decay_type", decay_type, curves.FALLS),
    ):
        if value not in shapes:
            raise ArgumentError(f"{setting} is '{value}'; write one of {', '.join(shapes)}.")
    if num_stable_steps is None:
        if num_training_steps is None:
            raise ArgumentError(
                "warmup_stable_decay needs num_training_steps or num_stable_steps; both are None. Write one of them."
            )
        num_stable_steps = num_training_steps - num_warmup_steps - num_decay_steps
    total = num_warmup_steps + num_stable_steps + num_decay_steps
    if num_stable_steps < 0 or num_training_steps not in (None, total):
        _logger.warning(
            "warmup_stable_decay: %d warm-up, %d stable and %d decay steps do not fit the %s steps of training",
            *(num_warmup_steps, num_stable_steps, num_decay_steps, num_training_steps),
        )
    curve = partial(
        curves.warmup_stable_decay,
        num_warmup_steps=num_warmup_steps,
        num_stable_steps=num_stable_steps,
        num_decay_steps=num_decay_steps,
        warmup_type=warmup_type,
        decay_type=decay_type,
        min_lr_ratio=min_lr_ratio,
        num_cycles=num_cycles,
    )
    return StepSchedule(optimizer, curve, last_epoch)


def get_reduce_on_plateau_schedule(optimizer: Optimizer, **kwargs: Any) -> ReduceLROnPlateau:
    """Return torch's schedule that lowers the rate when a metric no longer improves."""
    return ReduceLROnPlateau(optimizer, **kwargs)


def get_greedy_schedule(optimizer: Optimizer, **kwargs: Any) -> GreedyLR:
    """Return the schedule that raises the rate while a metric improves and lowers it when it does not."""
    return GreedyLR(optimizer, **kwargs)


@dataclass(frozen=True)
class _Schedule:
    """How a named schedule is made, and by whose signature its keyword arguments are checked."""

    make: Callable[..., LRScheduler]
    signature: Callable[..., Any]

    def takes(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.signature).parameters)


def _own(make: Callable[..., LRScheduler]) -> _Schedule:
    return _Schedule(make, make)


# lr_scheduler_type -> how it is made.
SCHEDULES: Mapping[str, _Schedule] = {
    "linear": _own(get_linear_schedule_with_warmup),
    "cosine": _own(get_cosine_schedule_with_warmup),
    "cosine_with_restarts": _own(get_cosine_with_hard_restarts_schedule_with_warmup),
    "polynomial": _own(get_polynomial_decay_schedule_with_warmup),
    "constant": _own(get_constant_schedule),
    "constant_with_warmup": _own(get_constant_schedule_with_warmup),
    "inverse_sqrt": _own(get_inverse_sqrt_schedule),
    "reduce_lr_on_plateau": _Schedule(get_reduce_on_plateau_schedule, ReduceLROnPlateau),
    "cosine_with_min_lr": _own(get_cosine_with_min_lr_schedule_with_warmup),
    "cosine_warmup_with_min_lr": _own(get_cosine_with_min_lr_schedule_with_warmup_lr_rate),
    "warmup_stable_decay": _own(get_wsd_schedule),
    "greedy": _Schedule(get_greedy_schedule, GreedyLR),
}
# The same for scripts, by the members of the enum, which equal their names. Adding to it is refused: nobody would read.
TYPE_TO_SCHEDULER_FUNCTION = MappingProxyType({member: SCHEDULES[member.value].make for member in SchedulerType})
# Arguments that the run gives, not lr_scheduler_kwargs.
_GIVEN = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")


def get_scheduler(
    name: str,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: Mapping[str, Any] | None = None,
) -> LRScheduler:
    """Return the schedule called `name`, one of `SCHEDULES`, with the original's arguments.

    Raises:
        ArgumentError: An unknown name, a missing number of steps, or a keyword that the schedule does not take.
    """
    if name not in SCHEDULES:
        raise ArgumentError(f"lr_scheduler_type is '{name}'; write one of {', '.join(SCHEDULES)}.")
    if isinstance(optimizer, LayerWiseDummyOptimizer):
        return _of_each(name, optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs)
    schedule, kwargs = SCHEDULES[name], dict(scheduler_specific_kwargs or {})
    takes = schedule.takes()
    _check_kwargs(name, kwargs, {key: value for key, value in takes.items() if key not in _GIVEN})
    steps = {"num_warmup_steps": num_warmup_steps, "num_training_steps": num_training_steps}
    given = {key: value for key, value in steps.items() if key in takes}
    for key, value in given.items():
        if value is None and takes[key].default is inspect.Parameter.empty:
            raise ArgumentError(f"The schedule '{name}' needs {key}, which is None. Write a number of steps.")
    return schedule.make(optimizer, **given, **kwargs)


def _of_each(name: str, optimizer: LayerWiseDummyOptimizer, *given: Any) -> LRScheduler:
    """Give each optimizer behind a stand-in its schedule, stepped when its parameter's gradient is complete."""
    optimizers = optimizer.optimizer_dict or {}
    for parameter, own in optimizers.items():
        schedule = get_scheduler(name, own, *given)
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, step=schedule.step: step())
    return LayerWiseDummyScheduler(optimizer_dict=optimizers, lr=optimizer.defaults["lr"])


def _check_kwargs(name: str, kwargs: Mapping[str, Any], takes: Mapping[str, inspect.Parameter]) -> None:
    listed = ", ".join(takes) or "none"
    if unknown := set(kwargs) - set(takes):
        raise ArgumentError(
            f"lr_scheduler_kwargs has {', '.join(sorted(unknown))}, which the schedule '{name}' does not take; "
            f"it takes: {listed}."
        )
    needed = [key for key, value in takes.items() if value.default is inspect.Parameter.empty]
    if missing := [key for key in needed if key not in kwargs]:
        raise ArgumentError(f"The schedule '{name}' needs {', '.join(missing)} in lr_scheduler_kwargs.")


def build_schedule(
    name: str,
    optimizer: Optimizer,
    *,
    num_warmup_steps: int,
    num_training_steps: int,
    scheduler_kwargs: Mapping[str, Any] | None = None,
) -> LRScheduler:
    """Return the schedule of a run: `get_scheduler` with all that a run knows."""
    return get_scheduler(name, optimizer, num_warmup_steps, num_training_steps, scheduler_kwargs)


def has_direction(name: str) -> bool:
    """Say whether the schedule called `name` follows a metric that may rise or fall (`mode`, 'max' or 'min')."""
    return "mode" in SCHEDULES[name].takes()


def set_step(schedule: Any, step: int) -> bool:
    """Put a schedule that is a function of the step, a `LambdaLR`, at a step; False for any other, which stays.

    The rates of the optimizer become those of that step.
    """
    if not isinstance(schedule, LambdaLR):
        return False
    schedule.last_epoch, schedule._step_count = step, step + 1
    rates = [base * curve(step) for base, curve in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    schedule._last_lr = rates
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return True


def needs_metric(scheduler: Any) -> bool:
    """Say whether `scheduler` steps with a metric after each evaluation, not after each step of the optimizer."""
    step = getattr(type(scheduler), "step", None)
    return step is not None and "metrics" in inspect.signature(step).parameters

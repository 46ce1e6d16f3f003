"""What crosses topics: values that follow from others, and what must hold between them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from surestep.config.enums import IntervalStrategy, SaveStrategy, SchedulerType
from surestep.config.nearest import did_you_mean
from surestep.config.topics.hardware import splits_batches
from surestep.runtime.world import current_world

if TYPE_CHECKING:
    from surestep.config.arguments import TrainingArguments

# What `resume_allow` names besides settings.
RESUMED_PARTS = ("train_dataset", "processes", "all")
_WATCHES_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)


def derive(args: TrainingArguments) -> None:
    """Fill in what follows from other topics. Doing it twice changes nothing."""
    if args.eval_strategy != IntervalStrategy.NO:
        args.do_eval = True
    if args.eval_strategy == IntervalStrategy.STEPS and not args.eval_steps:
        args.eval_steps = args.logging_steps
    if args.metric_for_best_model is None and (
        args.load_best_model_at_end or args.save_keep_best or args.lr_scheduler_type in _WATCHES_METRIC
    ):
        args.metric_for_best_model = "loss"
    if args.use_cpu:
        args.dataloader_pin_memory = False
    if _forks_workers(args):
        args.dataloader_multiprocessing_context = "fork"


def _forks_workers(args: TrainingArguments) -> bool:
    """Say whether loading processes must be forked: several of them beside Apple's GPU, and nothing else asked for."""
    if platform.system() != "Darwin" or args.dataloader_num_workers < 2 or args.dataloader_multiprocessing_context:
        return False
    import torch

    return torch.backends.mps.is_available()


def check(args: TrainingArguments) -> Iterator[str]:
    """Yield what cannot be right between topics."""
    yield from _check_best_model(args)
    yield from _check_devices(args)
    yield from _check_clipping(args)
    yield from _check_allowed(args)
    if args.nonfinite == "rewind" and (args.save_strategy == SaveStrategy.NO or args.save_only_model):
        found = 'save_strategy="no"' if args.save_strategy == SaveStrategy.NO else "save_only_model=True"
        yield (
            f'nonfinite="rewind" goes back to a checkpoint, and {found} leaves none to go back to. Write '
            'save_strategy="steps", or nonfinite="skip".'
        )
    if getattr(args, "sortish_sampler", False) and args.train_sampling_strategy != "random":
        yield (
            f'sortish_sampler=True and train_sampling_strategy="{args.train_sampling_strategy}" are two orders of the '
            "training samples. Write one of them."
        )
    if args.lr_scheduler_type in _WATCHES_METRIC and args.eval_strategy == IntervalStrategy.NO:
        name = SchedulerType(args.lr_scheduler_type).value
        yield (
            f'lr_scheduler_type="{name}" follows a metric, and eval_strategy="no" measures none. '
            'Write eval_strategy="epoch" or "steps".'
        )


def _check_best_model(args: TrainingArguments) -> Iterator[str]:
    # Saving and evaluating need not share a schedule: the best model is saved when it is found.
    saves_best = args.save_strategy == SaveStrategy.BEST
    if args.track_best and args.eval_strategy == IntervalStrategy.NO:
        yield (
            f'track_best={args.track_best} needs evaluations, and eval_strategy is "no". '
            'Write eval_strategy="epoch" or "steps".'
        )
    if args.save_keep_best and args.eval_strategy == IntervalStrategy.NO:
        yield (
            f'save_keep_best={args.save_keep_best} needs evaluations, and eval_strategy is "no". '
            'Write eval_strategy="epoch" or "steps".'
        )
    wanted = 'save_strategy="best"' if saves_best else "load_best_model_at_end=True"
    if not (saves_best or args.load_best_model_at_end):
        return
    if args.eval_strategy == IntervalStrategy.NO:
        yield f'{wanted} needs evaluations, and eval_strategy is "no". Write eval_strategy="epoch" or "steps".'
    if saves_best and args.metric_for_best_model is None and not args.track_best:
        yield f'{wanted} needs metric_for_best_model. Write metric_for_best_model="loss", or the metric to watch.'
    if args.load_best_model_at_end and args.save_strategy == SaveStrategy.NO:
        yield f'{wanted} needs checkpoints, and save_strategy is "no". Write save_strategy="best".'


def _check_devices(args: TrainingArguments) -> Iterator[str]:
    """Yield what the device cannot do. torch is imported only where the answer depends on it."""
    if args.bf16 or args.bf16_full_eval:
        from surestep.runtime.device import supports_bf16

        if not supports_bf16(args.device):
            name = "bf16" if args.bf16 else "bf16_full_eval"
            yield f"{name}=True: {args.device} does not compute in bfloat16. Write fp16=True, or use_cpu=True."
    if args.tf32:
        import torch

        if not torch.cuda.is_available() or torch.cuda.get_device_capability(args.device)[0] < 8:
            yield f"tf32=True: {args.device} has no TF32 (Ampere and newer GPUs have). Write tf32=None."


def _check_clipping(args: TrainingArguments) -> Iterator[str]:
    # The norm's default gives way to another kind of clipping; a norm that somebody wrote down does not.
    if args.max_grad_norm <= 0 or "max_grad_norm" not in args._given:
        return
    for name in ("max_grad_value", "adaptive_clip_ratio"):
        if (value := getattr(args, name)) is not None:
            yield (
                f"max_grad_norm={args.max_grad_norm} and {name}={value} are two kinds of clipping. Write one of them; "
                f"with {name} alone there is none by norm."
            )


def _check_allowed(args: TrainingArguments) -> Iterator[str]:
    known = [*type(args).__dataclass_fields__, *RESUMED_PARTS]
    for name in args.resume_allow or ():
        if name not in known:
            hint = did_you_mean(name, known)
            yield f"resume_allow has {name!r}, which is no setting.{hint} Write names of settings, or 'all'."


def work_out_accumulation(args: TrainingArguments, earlier: int | None) -> Iterator[str]:
    """Set accumulation from `global_batch_size`, or yield why it cannot be. `earlier` is what was worked out before."""
    total = args.global_batch_size
    if total is None:
        return
    per_device, devices = args.per_device_train_batch_size, 1 if splits_batches(args) else current_world().size
    unit, given = per_device * devices, args.gradient_accumulation_steps
    here = f"per_device_train_batch_size={per_device} on {devices} device(s)"
    if total % unit:
        below = total // unit * unit
        sizes = f"{below} or {below + unit}" if below else f"{unit}"
        other = _largest_divisor(total, devices, per_device)
        yield (
            f"global_batch_size={total} is no multiple of {unit}, the samples of {here}. "
            f"Write global_batch_size={sizes}{f', or per_device_train_batch_size={other}' if other else ''}."
        )
    elif given not in {1, total // unit, earlier}:
        yield (
            f"gradient_accumulation_steps={given} contradicts global_batch_size={total}, which means {total // unit} "
            f"with {here}. Write one of the two."
        )
    else:
        args.gradient_accumulation_steps = total // unit


def _largest_divisor(total: int, devices: int, at_most: int) -> int:
    """Return the largest batch of a device, of `at_most` samples, that divides the total; 0 where there is none."""
    return max((size for size in range(1, at_most + 1) if total % (size * devices) == 0), default=0)


def mixed_precision(args: TrainingArguments) -> str:
    """Return "no", "fp16", "bf16" or "fp8": from the arguments, else from accelerate's environment."""
    for name in ("fp8", "fp16", "bf16"):
        if getattr(args, name):
            return name
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")

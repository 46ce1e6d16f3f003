"""What a job would do, worked out without doing it: steps, rates, parameters, memory. Nothing is written."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import default_collate

from surestep.jobs.assemble import Assembly, assemble
from surestep.jobs.folder import RunFolder
from surestep.jobs.job import Job
from surestep.jobs.memory import Memory, estimate, longest_samples
from surestep.training.plan import Plan

if TYPE_CHECKING:
    from surestep import Trainer

# A schedule that can only be walked through is walked no further.
_WALKED = 100_000
_POINTS = 41


@dataclass(frozen=True)
class Group:
    """Parameters that the optimizer treats alike."""

    tensors: int
    parameters: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class JobPlan:
    """The numbers of a run before it begins. `rates` holds pairs (step, learning rate), steps counted from 1."""

    job: Job
    output_dir: Path
    standing: str
    sizes: Mapping[str, int]
    labels: tuple[str, ...]
    steps: Plan
    micro_batch: int
    optimizer: str
    schedule: str
    rates: tuple[tuple[int, float], ...]
    parameters: int
    trainable: int
    groups: tuple[Group, ...]
    memory: Memory
    device: str
    precision: str
    warnings: tuple[str, ...]


def plan_job(job: Job, base: Path) -> JobPlan:
    """Work out the plan of a job, or raise `JobError` when it cannot be run as declared."""
    with tempfile.TemporaryDirectory() as nowhere:
        assembly = assemble(job, base, output_dir=nowhere)
        trainer = assembly.trainer()
        return _plan(assembly, trainer)


def _plan(assembly: Assembly, trainer: Trainer) -> JobPlan:
    job, arguments, model = assembly.job, assembly.arguments, assembly.prepared.model
    samples = assembly.prepared.samples["train"]
    accumulation = arguments.gradient_accumulation_steps
    steps = Plan.make(
        batches=len(trainer.get_train_dataloader()),
        examples=len(assembly.splits.train),
        accumulation=accumulation,
        total_batch_size=arguments.train_batch_size * accumulation * arguments.world_size,
        num_train_epochs=arguments.num_train_epochs,
        max_steps=arguments.max_steps,
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=steps.max_steps)
    optimizer: Any = trainer.optimizer
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    batches = longest_samples(samples, assembly.prepared.collate or default_collate)
    return JobPlan(
        job=job,
        output_dir=Path(job.output_dir),
        standing=RunFolder(Path(job.output_dir)).standing(),
        sizes=assembly.splits.sizes(),
        labels=assembly.splits.labels.names,
        steps=steps,
        micro_batch=arguments.train_batch_size,
        optimizer=type(optimizer).__name__,
        schedule=str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        rates=_rates(trainer.lr_scheduler, steps.max_steps),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        groups=tuple(map(_group, optimizer.param_groups)),
        memory=estimate(model, optimizer, batches, arguments.train_batch_size, dtype),
        device=str(arguments.device),
        precision={torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}[dtype],
        warnings=assembly.splits.warnings,
    )


def _group(group: Mapping[str, Any]) -> Group:
    parameters = group["params"]
    return Group(
        tensors=len(parameters),
        parameters=sum(parameter.numel() for parameter in parameters),
        learning_rate=float(group.get("initial_lr", group["lr"])),
        weight_decay=float(group.get("weight_decay", 0.0)),
    )


def _rates(scheduler: Any, steps: int) -> tuple[tuple[int, float], ...]:
    """Return the first group's learning rate at up to 41 evenly spaced steps; only the first where scores decide."""
    points = sorted({1 + round(i * (steps - 1) / (_POINTS - 1)) for i in range(_POINTS)})
    factors = getattr(scheduler, "lr_lambdas", None)
    if factors is not None:
        return tuple((step, scheduler.base_lrs[0] * factors[0](step - 1)) for step in points)
    first = scheduler.optimizer.param_groups[0]["lr"]
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) or steps > _WALKED:
        return ((1, first),)
    walked = [first]
    with warnings.catch_warnings():
        # The schedule is walked without the optimizer, of which PyTorch warns.
        warnings.simplefilter("ignore")
        for _ in range(steps - 1):
            scheduler.step()
            walked.append(scheduler.optimizer.param_groups[0]["lr"])
    return tuple((step, walked[step - 1]) for step in points)

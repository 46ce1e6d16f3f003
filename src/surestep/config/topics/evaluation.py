"""Evaluation: when, on how much at once, and what it hands to the metrics."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from surestep.config.enums import IntervalStrategy
from surestep.config.rules import Member, Names, Number, whole
from surestep.config.steps import check_interval, whole_interval
from surestep.config.topic import Topic
from surestep.config.verdicts import DRAWS, HARMLESS, SCORES, verdicts


@dataclass
class EvaluationArguments:
    """When to evaluate, on how much at once, and what it hands to the metrics."""

    eval_strategy: IntervalStrategy | str = field(
        default="no", metadata={"help": "When to evaluate during training: no, steps, epoch."}
    )
    eval_steps: float | None = field(
        default=None,
        metadata={"help": "Steps between two evaluations; below 1 a fraction of all steps; None takes logging_steps."},
    )
    eval_delay: float = field(
        default=0, metadata={"help": "Do not evaluate before this step, or this epoch when evaluating by epoch."}
    )
    per_device_eval_batch_size: int = field(
        default=8, metadata={"help": "Samples of one batch on one device during evaluation."}
    )
    prediction_loss_only: bool = field(default=False, metadata={"help": "Collect the loss alone, no predictions."})
    eval_on_start: bool = field(default=False, metadata={"help": "Evaluate once before the first step."})
    eval_do_concat_batches: bool = field(
        default=True,
        metadata={"help": "Join predictions of all batches; otherwise keep a list with one item per batch."},
    )
    eval_use_gather_object: bool = field(
        default=False, metadata={"help": "Gather any nested Python object from all devices, not tensors alone."}
    )
    eval_accumulation_steps: int | None = field(
        default=None, metadata={"help": "Move collected predictions to the CPU every so many evaluation batches."}
    )
    include_for_metrics: list[str] = field(
        default_factory=list, metadata={"help": "What metrics see besides predictions and labels: inputs, loss."}
    )
    batch_eval_metrics: bool = field(
        default=False, metadata={"help": "Compute metrics batch by batch instead of collecting all predictions."}
    )
    eval_spill_bytes: int | None = field(
        default=2**30,
        kw_only=True,
        metadata={"help": "Bytes of collected predictions kept in memory; more goes to disk; None keeps all of them."},
    )


def _delay(name: str, value: Any) -> Any:
    """Take a delay; None, which `set_evaluate` has as its default, is none."""
    return 0 if value is None else Number(0, instead="Write 0 to evaluate from the start.")(name, value)


def _normalise(args: EvaluationArguments) -> None:
    if args.eval_strategy == IntervalStrategy.STEPS and args.eval_steps is not None:
        args.eval_steps = whole_interval(args.eval_steps)


def _check(args: EvaluationArguments) -> Iterator[str]:
    if args.eval_strategy == IntervalStrategy.STEPS and args.eval_steps is not None:
        yield from check_interval("eval_steps", args.eval_steps, 'eval_strategy="no" to evaluate never')


EVALUATION = Topic(
    EvaluationArguments,
    rules={
        "eval_strategy": Member(IntervalStrategy),
        "eval_steps": Number(0, optional=True, instead="Write the steps between two evaluations, such as 500."),
        "eval_delay": _delay,
        "per_device_eval_batch_size": whole(1, instead="Write 1 or more; the default is 8."),
        "eval_spill_bytes": whole(0, optional=True, instead="Write bytes such as 2**30, or None for no limit."),
        "eval_accumulation_steps": whole(1, optional=True, instead="Write None to keep predictions on the device."),
        "include_for_metrics": Names(("inputs", "loss")),
    },
    normalise=_normalise,
    check=_check,
    resumed=verdicts(
        (DRAWS, "eval_strategy eval_steps eval_delay eval_on_start"),
        (
            SCORES,
            "prediction_loss_only eval_do_concat_batches eval_use_gather_object include_for_metrics batch_eval_metrics",
        ),
        (HARMLESS, "per_device_eval_batch_size eval_accumulation_steps eval_spill_bytes"),
    ),
)

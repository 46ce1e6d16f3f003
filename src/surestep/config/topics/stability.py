"""Stability: accumulation, clipping, smoothing."""

from dataclasses import dataclass, field
from typing import Any

from surestep.config.rules import Choice, Number, whole
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, MATHEMATICS, batch, verdicts

NONFINITE = ("stop", "skip", "rewind", "ignore")


@dataclass
class StabilityArguments:
    """Accumulation, clipping, smoothing."""

    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Micro-batches of one optimizer step."})
    average_tokens_across_devices: bool = field(
        default=True,
        metadata={"help": "Divide the loss by the number of labels of the step over all devices, not of each its own."},
    )
    max_grad_norm: float = field(
        default=1.0,
        metadata={"help": "Scale gradients down to this global norm; 0 measures the norm without clipping."},
    )
    label_smoothing_factor: float = field(
        default=0.0,
        metadata={"help": "Share of the target spread evenly over all labels; 0 leaves labels as they are."},
    )
    nonfinite: str = field(
        default="stop",
        kw_only=True,
        metadata={
            "help": "What follows a loss or gradient that is NaN or infinite, found before the update: stop with an "
            "error that names where, skip the update, rewind to the "
            "last checkpoint and leave the step out, or ignore it, as the original does.",
            "choices": [*NONFINITE],
        },
    )


_NORM = Number(0, infinite=True, instead="Write 1.0, or 0 to leave gradients unclipped.")


def _norm(name: str, value: Any) -> Any:
    """Take a norm. None switches clipping off, as it did in 4.x, where it could be written so."""
    return 0.0 if value is None else _NORM(name, value)


STABILITY = Topic(
    StabilityArguments,
    rules={
        "gradient_accumulation_steps": whole(1, instead="Write 1 to update after every micro-batch."),
        "max_grad_norm": _norm,
        "nonfinite": Choice(NONFINITE),
        "label_smoothing_factor": Number(0, 1, below_high=True, instead="Write 0.0 for none; 0.1 is usual."),
    },
    resumed=verdicts(
        (batch, "gradient_accumulation_steps"),
        (MATHEMATICS, "average_tokens_across_devices max_grad_norm label_smoothing_factor"),
        (HARMLESS, "nonfinite"),
    ),
)

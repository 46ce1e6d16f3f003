"""Optimizer: which one, and its numbers."""

from dataclasses import dataclass, field

from surestep.config.enums import OptimizerNames
from surestep.config.rules import Member, Names, Number
from surestep.config.topic import Topic
from surestep.config.verdicts import HELD, OTHER_STATE, ROUNDING, one_of, verdicts
from surestep.optional import version

# The fused kernel runs on every device from this version on.
DEFAULT_OPTIMIZER = "adamw_torch_fused" if version("torch") >= (2, 8) else "adamw_torch"


@dataclass
class OptimizerArguments:
    """Which optimizer, and its numbers."""

    optim: OptimizerNames | str = field(default=DEFAULT_OPTIMIZER, metadata={"help": "Optimizer, by name."})
    optim_args: str | None = field(
        default=None, metadata={"help": "Further settings of the optimizer, as 'name=value,name=value'."}
    )
    weight_decay: float = field(
        default=0.0, metadata={"help": "Weight decay of every parameter but biases and those of normalisation layers."}
    )
    adam_beta1: float = field(default=0.9, metadata={"help": "Decay of the running mean of gradients (Adam family)."})
    adam_beta2: float = field(
        default=0.999, metadata={"help": "Decay of the running mean of squared gradients (Adam family)."}
    )
    adam_epsilon: float = field(
        default=1e-8,
        metadata={"help": "What keeps the division by the root of the second moment finite (Adam family)."},
    )
    optim_target_modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Modules that a low-rank optimizer (GaLore, APOLLO) works on: names, patterns, 'all-linear'."
        },
    )


_ADAMW = ("adamw_torch", "adamw_torch_fused")
_BETA = "Write a number such as 0.9; 1 would never take up a gradient."

OPTIMIZER = Topic(
    OptimizerArguments,
    rules={
        "optim": Member(OptimizerNames),
        "weight_decay": Number(0, instead="Write 0.0 for none; 0.01 and 0.1 are usual."),
        "adam_beta1": Number(0, 1, below_high=True, instead=_BETA),
        "adam_beta2": Number(0, 1, below_high=True, instead=_BETA),
        "adam_epsilon": Number(0, instead="Write a small positive number such as 1e-8."),
        "optim_target_modules": Names(optional=True, one=True),
    },
    resumed=verdicts(
        (one_of(_ADAMW, "optim", ROUNDING, OTHER_STATE), "optim"),
        (OTHER_STATE, "optim_target_modules"),
        (HELD, "optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon"),
    ),
)

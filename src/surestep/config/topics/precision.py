"""Precision: the number formats of training and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from surestep.config.topic import Topic
from surestep.config.verdicts import ROUNDING, SCORES, verdicts


@dataclass
class PrecisionArguments:
    """The number formats of training and evaluation."""

    bf16: bool = field(
        default=False, metadata={"help": "Compute in bfloat16 where that is safe, keep float32 weights."}
    )
    fp16: bool = field(
        default=False,
        metadata={"help": "Compute in float16 where that is safe, with a scaled loss and float32 weights."},
    )
    bf16_full_eval: bool = field(default=False, metadata={"help": "Evaluate with the whole model in bfloat16."})
    fp16_full_eval: bool = field(default=False, metadata={"help": "Evaluate with the whole model in float16."})
    tf32: bool | None = field(
        default=None, metadata={"help": "Allow TF32 in float32 products (Ampere and newer); None leaves it to torch."}
    )
    fp8: bool = field(
        default=False,
        kw_only=True,
        metadata={
            "help": "Compute the products of linear layers in float8 and the rest in bfloat16 (NVIDIA GPUs of compute "
            "capability 8.9 and newer; needs torchao)."
        },
    )


def _check(args: PrecisionArguments) -> Iterator[str]:
    if args.fp16 and args.bf16:
        yield "fp16=True and bf16=True cannot both be. Write bf16=True alone, or fp16=True alone on older GPUs."
    if args.fp8 and args.fp16:
        yield "fp8=True and fp16=True cannot both be. Write fp8=True alone: what is not in float8 is in bfloat16."
    if args.fp16_full_eval and args.bf16_full_eval:
        yield "fp16_full_eval=True and bf16_full_eval=True cannot both be. Write one of them."


PRECISION = Topic(
    PrecisionArguments,
    check=_check,
    resumed=verdicts(
        (ROUNDING, "bf16 fp16 tf32 fp8"),
        (SCORES, "bf16_full_eval fp16_full_eval"),
    ),
)

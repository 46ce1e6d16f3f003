"""Precision: the number formats of training and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from surestep.config.topic import Topic


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


def _check(args: PrecisionArguments) -> Iterator[str]:
    if args.fp16 and args.bf16:
        yield "fp16=True and bf16=True cannot both be. Write bf16=True alone, or fp16=True alone on older GPUs."
    if args.fp16_full_eval and args.bf16_full_eval:
        yield "fp16_full_eval=True and bf16_full_eval=True cannot both be. Write one of them."


PRECISION = Topic(PrecisionArguments, check=_check)

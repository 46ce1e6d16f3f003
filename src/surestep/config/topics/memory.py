"""Memory and speed of the model: recomputation, compilation, kernels, caches."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from surestep.config.messages import refuse
from surestep.config.rules import Number, Settings, whole
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, MATHEMATICS, ROUNDING, batch, verdicts

# A bare `--activation_checkpointing` on the command line means True.
_BARE = {"nargs": "?", "const": True}


@dataclass
class MemoryArguments:
    """Recomputation, compilation, kernels, caches."""

    activation_checkpointing: bool | None = field(
        default=None,
        metadata={"help": "Recompute activations in the backward pass instead of keeping them.", **_BARE},
    )
    activation_checkpointing_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Settings of activation checkpointing, as a dictionary or a JSON object."}
    )
    gradient_checkpointing: bool | None = field(
        default=None, metadata={"help": "The older name of activation_checkpointing.", **_BARE}
    )
    gradient_checkpointing_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "The older name of activation_checkpointing_kwargs."}
    )
    torch_compile: bool = field(default=False, metadata={"help": "Compile the model with torch.compile."})
    torch_compile_backend: str | None = field(
        default=None, metadata={"help": "Backend of torch.compile; giving it switches compilation on."}
    )
    torch_compile_mode: str | None = field(
        default=None, metadata={"help": "Mode of torch.compile; giving it switches compilation on."}
    )
    use_liger_kernel: bool = field(default=False, metadata={"help": "Replace parts of the model by Liger kernels."})
    liger_kernel_config: dict[str, bool] | None = field(
        default=None, metadata={"help": "Which Liger kernels to use, as a dictionary."}
    )
    use_cache: bool = field(
        default=False, metadata={"help": "Let the model keep keys and values between calls; training needs none."}
    )
    neftune_noise_alpha: float | None = field(
        default=None, metadata={"help": "Strength of NEFTune noise on the embeddings while training; None for none."}
    )
    torch_empty_cache_steps: int | None = field(
        default=None, metadata={"help": "Give unused device memory back every so many steps; None never does."}
    )
    auto_find_batch_size: bool = field(
        default=False, metadata={"help": "Start again with a smaller micro-batch when memory does not suffice."}
    )


# The older names mirror today's, so that code which reads them keeps working.
MIRRORS = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


def _normalise(args: MemoryArguments) -> None:
    for old, new in MIRRORS.items():
        if getattr(args, new) is None:
            setattr(args, new, getattr(args, old))
    if args.activation_checkpointing is None:
        args.activation_checkpointing = False
    for old, new in MIRRORS.items():
        setattr(args, old, getattr(args, new))
    if args.torch_compile_mode is not None or args.torch_compile_backend is not None:
        args.torch_compile = True
    if args.torch_compile and args.torch_compile_backend is None:
        args.torch_compile_backend = "inductor"


def _kernels(name: str, value: Any) -> Any:
    """Take a dictionary of kernel names and truth values."""
    if value is None or isinstance(value, dict):
        return value
    raise refuse(name, value, "a dictionary", f'Write for example {name}={{"rope": True}}.')


def _check(args: MemoryArguments) -> Iterable[str]:
    if args.liger_kernel_config and not args.use_liger_kernel:
        yield "liger_kernel_config is set, but use_liger_kernel is False. Write use_liger_kernel=True, or leave it out."


MEMORY = Topic(
    MemoryArguments,
    rules={
        "activation_checkpointing_kwargs": Settings(),
        "gradient_checkpointing_kwargs": Settings(),
        "liger_kernel_config": _kernels,
        "neftune_noise_alpha": Number(0, optional=True, instead="Write None for no noise; 5 is usual."),
        "torch_empty_cache_steps": whole(1, optional=True, instead="Write None to never empty the cache."),
    },
    normalise=_normalise,
    check=_check,
    resumed=verdicts(
        (
            HARMLESS,
            "activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing "
            "gradient_checkpointing_kwargs use_cache torch_empty_cache_steps",
        ),
        (ROUNDING, "torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config"),
        (MATHEMATICS, "neftune_noise_alpha"),
        (batch, "auto_find_batch_size"),
    ),
)

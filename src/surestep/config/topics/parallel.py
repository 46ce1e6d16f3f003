"""Parallel: several devices that share a run (DDP, FSDP, DeepSpeed)."""

import os
from dataclasses import dataclass, field
from typing import Any

from surestep.config.messages import refuse
from surestep.config.rules import Choice, Settings, whole
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, MATHEMATICS, ROUNDING, verdicts

BACKENDS = ("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl")


@dataclass
class ParallelArguments:
    """Several devices that share a run."""

    ddp_find_unused_parameters: bool | None = field(
        default=None,
        metadata={"help": "Let DDP look for parameters that a step does not use; None decides by the model."},
    )
    ddp_bucket_cap_mb: int | None = field(
        default=None, metadata={"help": "Size in MiB of the buckets that DDP reduces gradients in."}
    )
    ddp_broadcast_buffers: bool | None = field(
        default=None, metadata={"help": "Let DDP copy buffers from the first process to the others at each step."}
    )
    ddp_static_graph: bool | None = field(
        default=None, metadata={"help": "Tell DDP that every step uses the same parameters."}
    )
    ddp_backend: str | None = field(
        default=None,
        metadata={"help": "Backend of the process group; None takes the device's.", "choices": [*BACKENDS]},
    )
    ddp_timeout: int = field(default=1800, metadata={"help": "Seconds that a process waits for the others."})
    fsdp: str | None = field(
        default=None,
        metadata={
            "help": "Shard the model over the devices (fully sharded data parallel).",
            "nargs": "?",
            "const": True,
        },
    )
    fsdp_config: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Settings of the sharding, as a dictionary, a JSON object or a JSON file's path."},
    )
    deepspeed: dict | str | None = field(  # type: ignore[type-arg]  # argparse calls the type: no parameters
        default=None, metadata={"help": "DeepSpeed's settings, as a dictionary, a JSON object or a JSON file's path."}
    )


def _fsdp(name: str, value: Any) -> Any:
    """Take a truth value, or the older words as a string or a list."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return list(value)
    raise refuse(name, value, "True, False or None", "Write fsdp=True, and the rest into fsdp_config.")


def _deepspeed(name: str, value: Any) -> Any:
    """Take settings or the path of a file; an empty path is none."""
    return None if isinstance(value, str | os.PathLike) and not os.fspath(value) else Settings(path=True)(name, value)


PARALLEL = Topic(
    ParallelArguments,
    rules={
        "ddp_bucket_cap_mb": whole(1, optional=True, instead="Write None to leave it to torch."),
        "ddp_backend": Choice(BACKENDS, optional=True),
        "ddp_timeout": whole(1, instead="Write seconds, such as 1800."),
        "fsdp": _fsdp,
        "fsdp_config": Settings(path=True),
        "deepspeed": _deepspeed,
    },
    resumed=verdicts(
        (HARMLESS, "ddp_find_unused_parameters ddp_static_graph ddp_backend ddp_timeout"),
        (ROUNDING, "ddp_bucket_cap_mb fsdp fsdp_config deepspeed"),
        (MATHEMATICS, "ddp_broadcast_buffers"),
    ),
)

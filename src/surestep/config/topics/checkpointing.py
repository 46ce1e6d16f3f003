"""Checkpointing: when checkpoints are written, and how many stay."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from surestep.config.enums import SaveStrategy
from surestep.config.messages import refuse
from surestep.config.rules import Choice, Member, Number, Settings, Text, length_of_time, whole, without_secret
from surestep.config.steps import check_interval, whole_interval
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, verdicts

ON_SAVE_ERROR = ("continue", "stop")


@dataclass
class CheckpointingArguments:
    """When checkpoints are written, and how many stay."""

    save_only_model: bool = field(
        default=False, metadata={"help": "Write the model alone; such a checkpoint cannot be resumed."}
    )
    save_strategy: SaveStrategy | str = field(
        default="steps", metadata={"help": "When to write a checkpoint: no, steps, epoch, best."}
    )
    save_steps: float = field(
        default=500, metadata={"help": "Steps between two checkpoints; below 1 it is a fraction of all steps."}
    )
    save_on_each_node: bool = field(
        default=False, metadata={"help": "Write on every machine, for machines that share no storage."}
    )
    save_total_limit: int | None = field(
        default=None, metadata={"help": "Keep the newest so many checkpoints, and the best; None keeps all."}
    )
    enable_jit_checkpoint: bool = field(
        default=False,
        metadata={"help": "Save and stop on SIGTERM, also where save_strategy is no; see on_signal."},
    )
    save_keep_best: int | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "Keep besides the checkpoints of the best so many evaluations, by metric_for_best_model; one that "
            "is among them is saved at once."
        },
    )
    save_keep_every: int | None = field(
        default=None,
        kw_only=True,
        metadata={"help": "Keep besides the first checkpoint of every so many steps, for good."},
    )
    on_save_error: str = field(
        default="continue",
        kw_only=True,
        metadata={
            "help": "What a save does that fails because the disk is full or broken: continue (training goes on, and "
            "the next save tries again; a run whose last save failed ends with an error), stop."
        },
    )
    save_async: bool = field(
        default=False,
        kw_only=True,
        metadata={
            "help": "Write checkpoints while training goes on: it waits for a copy in host memory only. on_save and "
            "errors come once the checkpoint is on disk, a few steps later."
        },
    )
    save_remote: str | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "Remote folder that every checkpoint is sent to once it is complete in output_dir, as a URL that "
            "fsspec knows: s3://bucket/run, gs://bucket/run. resume_from_checkpoint='auto' looks there as well."
        },
    )
    on_signal: dict[str, str] | str | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "What SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 do: save_and_stop, save (and go on), stop (without a "
            "checkpoint), leave (to their own handlers); for all, or a dictionary by name. None is save_and_stop, or "
            "stop where save_strategy is no."
        },
    )
    save_on_exception: bool = field(
        default=True,
        kw_only=True,
        metadata={
            "help": "When training fails with an exception, save the last complete step, where all of its state is "
            "still there; not where save_strategy is no."
        },
    )
    preemption_grace: float | str | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "Time from a signal to the end of the process: seconds, or text such as '30s'. A save that would "
            "take longer than what is left of it is not begun."
        },
    )


SIGNAL_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")
ON_SIGNAL = ("save_and_stop", "save", "stop", "leave")


def _remote(name: str, value: Any) -> Any:
    """Take the URL of a remote folder."""
    value = without_secret(name, Text(optional=True)(name, value))
    if value is None:
        return None
    if "://" not in value:
        raise refuse(name, value, "a URL such as 's3://bucket/run'", "A folder of this machine is output_dir.")
    return value.rstrip("/")


def _on_signal(name: str, value: Any) -> Any:
    """Take an action, or the actions of some signals by name."""
    if value is None or (isinstance(value, str) and not value.lstrip().startswith("{")):
        return Choice(ON_SIGNAL, optional=True)(name, value)
    actions = Settings()(name, value)
    for number, action in actions.items():
        Choice(SIGNAL_NAMES)(f"a signal in {name}", number)
        Choice(ON_SIGNAL)(f"{name}[{number!r}]", action)
        if not hasattr(signal, number):
            raise refuse(name, value, f"of signals that this system has, and it has no {number}", "Leave it out.")
    return actions


def _normalise(args: CheckpointingArguments) -> None:
    if args.save_strategy == SaveStrategy.STEPS:
        args.save_steps = whole_interval(args.save_steps)


def _check(args: CheckpointingArguments) -> Iterator[str]:
    if args.save_strategy == SaveStrategy.STEPS:
        yield from check_interval("save_steps", args.save_steps, 'save_strategy="no" to save nothing')
    if args.save_remote and args.save_strategy == SaveStrategy.NO and not args.enable_jit_checkpoint:
        yield (
            f'save_remote={args.save_remote!r} is where checkpoints are sent, and save_strategy="no" writes none. '
            "Write save_strategy='steps'; to go on from a remote checkpoint, resume_from_checkpoint='<URL>' will do."
        )


CHECKPOINTING = Topic(
    CheckpointingArguments,
    rules={
        "save_strategy": Member(SaveStrategy),
        "save_steps": Number(0, instead="Write the steps between two checkpoints, such as 500."),
        "on_signal": _on_signal,
        "preemption_grace": length_of_time,
        "save_total_limit": whole(1, optional=True, instead="Write None to keep every checkpoint."),
        "save_keep_best": whole(1, optional=True, instead="Write None to keep none for being good."),
        "save_keep_every": whole(1, optional=True, instead="Write the steps between two that stay, such as 10000."),
        "on_save_error": Choice(ON_SAVE_ERROR),
        "save_remote": _remote,
    },
    normalise=_normalise,
    check=_check,
    resumed=verdicts(
        (HARMLESS, "save_only_model save_strategy save_steps save_on_each_node save_total_limit enable_jit_checkpoint"),
        (HARMLESS, "save_keep_best save_keep_every on_save_error save_async save_remote"),
        (HARMLESS, "on_signal preemption_grace save_on_exception"),
    ),
)

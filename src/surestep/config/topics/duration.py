"""Duration: how long to train, and how many samples a step takes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from surestep.config.messages import refuse
from surestep.config.rules import Number, length_of_time, whole
from surestep.config.topic import Topic
from surestep.config.verdicts import ENDS_OTHERWISE, MATHEMATICS, STRETCHED, batch, verdicts


@dataclass
class DurationArguments:
    """How long to train, and how many samples a step takes."""

    per_device_train_batch_size: int = field(
        default=8, metadata={"help": "Samples of one micro-batch on one device during training."}
    )
    num_train_epochs: float = field(
        default=3.0, metadata={"help": "Epochs to train; with a fraction, training stops part-way through the last."}
    )
    max_steps: int = field(
        default=-1,
        metadata={"help": "Optimizer steps to train; overrides the epochs when positive. A stream needs it."},
    )
    global_batch_size: int | None = field(
        default=None,
        kw_only=True,
        metadata={"help": "Samples of one optimizer step over all devices; accumulation is worked out from it."},
    )
    max_time: float | str | None = field(
        default=None,
        kw_only=True,
        metadata={"help": "Stop after this time, over all parts of the run: seconds, or '90m', '2h', '1h30m'."},
    )


def _check(args: DurationArguments) -> Iterator[str]:
    if args.max_steps == 0 or args.max_steps < -1:
        yield str(
            refuse("max_steps", args.max_steps, "a positive number of steps or -1", "Write -1 to train by epochs.")
        )
    elif args.num_train_epochs <= 0 and args.max_steps < 0:
        wants = "above 0 unless max_steps is given"
        yield str(refuse("num_train_epochs", args.num_train_epochs, wants, "Write 3.0, or a fraction such as 0.5."))


DURATION = Topic(
    DurationArguments,
    rules={
        "per_device_train_batch_size": whole(1, instead="Write 1 or more; the default is 8."),
        "num_train_epochs": Number(instead="Write 3.0, or a fraction such as 0.5."),
        "max_steps": whole(instead="Write -1 to train by epochs, or the number of steps."),
        "global_batch_size": whole(
            1, optional=True, instead="Write the samples of one optimizer step over all devices."
        ),
        "max_time": length_of_time,
    },
    check=_check,
    resumed=verdicts(
        (batch, "per_device_train_batch_size"),
        (STRETCHED, "num_train_epochs max_steps"),
        (MATHEMATICS, "global_batch_size"),
        (ENDS_OTHERWISE, "max_time"),
    ),
)

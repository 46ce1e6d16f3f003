"""Duration: how long to train, and how many samples a step takes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from surestep.config.messages import refuse
from surestep.config.rules import Number, plain, whole
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, MATHEMATICS, STRETCHED, batch, verdicts

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])\s*")


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
        metadata={"help": "Stop after this time: seconds, or text such as '90m', '2h' or '1h30m'."},
    )


def parse_duration(text: str) -> float | None:
    """Return the seconds that "5400", "90m", "2h" or "1h 30m" mean, None where the text means none."""
    text = text.strip().lower()
    parts = _PART.findall(text)
    if parts and not _PART.sub("", text):
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        return None


_SECONDS = Number(0, above_low=True, instead='Write seconds (5400) or text such as "90m", "2h" or "1h30m".')


def _time(name: str, value: object) -> float | None:
    """Take a length of time as seconds."""
    value = plain(value)
    if value is None:
        return None
    seconds = parse_duration(value) if isinstance(value, str) else value
    if seconds is None or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise refuse(name, value, "a length of time", _SECONDS.instead)
    return float(_SECONDS(name, seconds))


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
        "max_time": _time,
    },
    check=_check,
    resumed=verdicts(
        (batch, "per_device_train_batch_size"),
        (STRETCHED, "num_train_epochs max_steps"),
        (MATHEMATICS, "global_batch_size"),
        (HARMLESS, "max_time"),
    ),
)

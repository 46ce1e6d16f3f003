"""Logging: when, and what."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from surestep.config.enums import IntervalStrategy
from surestep.config.rules import Choice, Member, Number
from surestep.config.steps import check_interval, whole_interval
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, verdicts
from surestep.logs import LEVELS, get_logger

# `detail` is the original's word for debug with file names.
LOG_LEVELS = {"detail": LEVELS["debug"], **LEVELS}


@dataclass
class LoggingArguments:
    """When to log, and what."""

    logging_strategy: IntervalStrategy | str = field(
        default="steps", metadata={"help": "When to log: no, steps, epoch."}
    )
    logging_steps: float = field(
        default=500, metadata={"help": "Steps between two logs; below 1 it is a fraction of all steps."}
    )
    logging_first_step: bool = field(default=False, metadata={"help": "Log after the first step as well."})
    log_on_each_node: bool = field(
        default=True, metadata={"help": "Let one process of each machine speak, not one of all machines."}
    )
    logging_nan_inf_filter: bool = field(
        default=True, metadata={"help": "Leave NaN and infinite losses out of the logged mean, when asked for by name."}
    )
    include_num_input_tokens_seen: str | bool = field(
        default="no", metadata={"help": "Count input tokens: no, all, non_padding; adds tokens per second to the logs."}
    )
    log_level: str = field(
        default="passive", metadata={"help": "Log level of the main process; passive leaves it.", "choices": LOG_LEVELS}
    )
    log_level_replica: str = field(
        default="warning", metadata={"help": "Log level of the other processes.", "choices": LOG_LEVELS}
    )
    disable_tqdm: bool | None = field(
        default=None, metadata={"help": "Print plain lines instead of a progress bar; None follows the log level."}
    )


def _tokens(name: str, value: Any) -> Any:
    """Take one of the three words; True stands for all and False for no."""
    if isinstance(value, bool):
        return "all" if value else "no"
    return Choice(("no", "all", "non_padding"))(name, value)


def _normalise(args: LoggingArguments) -> None:
    if args.logging_strategy == IntervalStrategy.STEPS:
        args.logging_steps = whole_interval(args.logging_steps)
    if args.disable_tqdm is None:
        args.disable_tqdm = get_logger("surestep").getEffectiveLevel() > LEVELS["warning"]


def _check(args: LoggingArguments) -> Iterator[str]:
    if args.logging_strategy == IntervalStrategy.STEPS:
        yield from check_interval("logging_steps", args.logging_steps, 'logging_strategy="no" to log nothing')


LOGGING = Topic(
    LoggingArguments,
    rules={
        "logging_strategy": Member(IntervalStrategy),
        "logging_steps": Number(0, instead="Write the steps between two logs, such as 500."),
        "include_num_input_tokens_seen": _tokens,
        "log_level": Choice(LOG_LEVELS),
        "log_level_replica": Choice(LOG_LEVELS),
    },
    normalise=_normalise,
    check=_check,
    resumed=verdicts(
        (
            HARMLESS,
            "logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter "
            "include_num_input_tokens_seen log_level log_level_replica disable_tqdm",
        ),
    ),
)

"""Debug: what is watched besides training."""

from dataclasses import dataclass, field
from typing import Any

from surestep.config.enums import DebugOption
from surestep.config.messages import refuse
from surestep.config.rules import Member
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, verdicts


@dataclass
class DebugArguments:
    """What is watched besides training."""

    debug: str | list[DebugOption] = field(
        default="", metadata={"help": "What to watch, separated by spaces: underflow_overflow, tpu_metrics_debug."}
    )
    skip_memory_metrics: bool = field(default=True, metadata={"help": "Leave memory figures out of the metrics."})
    preflight: bool = field(
        default=False,
        kw_only=True,
        metadata={
            "help": "Before training, try a step, an evaluation batch, a save and a load, undo them, and stop where "
            "something is wrong."
        },
    )


def _options(name: str, value: Any) -> list[Any]:
    """Take options as a list; None and "" are none."""
    words = value.split() if isinstance(value, str) else value
    if words is None or words is False:
        return []
    if not isinstance(words, list | tuple):
        raise refuse(name, value, "a string of options or a list of them", 'Write debug="underflow_overflow".')
    return [Member(DebugOption)(name, word) for word in words]


DEBUG = Topic(
    DebugArguments,
    rules={"debug": _options},
    resumed=verdicts(
        (HARMLESS, "debug skip_memory_metrics preflight"),
    ),
)

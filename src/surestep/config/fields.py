"""The fields of all topics in one class, in the original's order."""

from __future__ import annotations

from dataclasses import dataclass

from surestep.config.rules import Rule
from surestep.config.topic import Topic
from surestep.config.topics.best import BEST_MODEL, BestModelArguments
from surestep.config.topics.checkpointing import CHECKPOINTING, CheckpointingArguments
from surestep.config.topics.data import DATA, DataArguments
from surestep.config.topics.debug import DEBUG, DebugArguments
from surestep.config.topics.duration import DURATION, DurationArguments
from surestep.config.topics.evaluation import EVALUATION, EvaluationArguments
from surestep.config.topics.fine_tuning import FINE_TUNING, FineTuningArguments
from surestep.config.topics.hardware import HARDWARE, HardwareArguments
from surestep.config.topics.hub import HUB, HubArguments
from surestep.config.topics.logging import LOGGING, LoggingArguments
from surestep.config.topics.memory import MEMORY, MemoryArguments
from surestep.config.topics.optimizer import OPTIMIZER, OptimizerArguments
from surestep.config.topics.output import OUTPUT, OutputArguments
from surestep.config.topics.parallel import PARALLEL, ParallelArguments
from surestep.config.topics.precision import PRECISION, PrecisionArguments
from surestep.config.topics.reproducibility import REPRODUCIBILITY, ReproducibilityArguments
from surestep.config.topics.schedule import SCHEDULE, ScheduleArguments
from surestep.config.topics.script import SCRIPT, ScriptArguments
from surestep.config.topics.stability import STABILITY, StabilityArguments
from surestep.config.topics.tracking import TRACKING, TrackingArguments
from surestep.config.verdicts import Judge

TOPICS: tuple[Topic, ...] = (
    OUTPUT,
    DURATION,
    SCHEDULE,
    OPTIMIZER,
    STABILITY,
    PRECISION,
    MEMORY,
    LOGGING,
    TRACKING,
    EVALUATION,
    CHECKPOINTING,
    HUB,
    BEST_MODEL,
    REPRODUCIBILITY,
    HARDWARE,
    DATA,
    PARALLEL,
    DEBUG,
    SCRIPT,
    FINE_TUNING,
)


def rules_of(topics: tuple[Topic, ...]) -> dict[str, Rule]:
    """Return the rule of every field of the topics."""
    return {name: rule for topic in topics for name, rule in topic.all_rules().items()}


def judges_of(topics: tuple[Topic, ...]) -> dict[str, Judge]:
    """Return what judges, for every field of the topics, a run that is resumed with another value."""
    return {name: judge for topic in topics for name, judge in topic.resumed.items()}


# A dataclass takes the fields of its last base first.
@dataclass(init=False, repr=False, eq=False)
class AllFields(
    FineTuningArguments,
    ScriptArguments,
    DebugArguments,
    ParallelArguments,
    DataArguments,
    HardwareArguments,
    ReproducibilityArguments,
    BestModelArguments,
    HubArguments,
    CheckpointingArguments,
    EvaluationArguments,
    TrackingArguments,
    LoggingArguments,
    MemoryArguments,
    PrecisionArguments,
    StabilityArguments,
    OptimizerArguments,
    ScheduleArguments,
    DurationArguments,
    OutputArguments,
):
    """The fields of all topics."""

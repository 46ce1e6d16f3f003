"""Schedule: the learning rate over the run."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from surestep.config.enums import SchedulerType
from surestep.config.messages import refuse
from surestep.config.rules import Member, Number, Settings
from surestep.config.topic import Topic
from surestep.config.verdicts import HELD, MATHEMATICS, Effect, Verdict, one_of, verdicts


@dataclass
class ScheduleArguments:
    """The learning rate over the run."""

    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate."})
    lr_scheduler_type: SchedulerType | str = field(
        default="linear", metadata={"help": "Shape of the learning rate over the run, by name."}
    )
    lr_scheduler_kwargs: dict | str | None = field(  # type: ignore[type-arg]  # argparse calls the type: no parameters
        default=None, metadata={"help": "Further settings of the schedule, as a dictionary or a JSON object."}
    )
    warmup_steps: float = field(
        default=0,
        metadata={"help": "Steps over which the learning rate rises from 0; below 1 it is a fraction of all steps."},
    )


# These follow a metric, the others the number of the step.
_FOLLOWS = {SchedulerType.REDUCE_ON_PLATEAU.value, SchedulerType.GREEDY.value}
_SHAPE = one_of(
    {kind.value for kind in SchedulerType} - _FOLLOWS,
    "lr_scheduler_type",
    MATHEMATICS,
    Verdict(Effect.REFUSED, "the state of the schedule is of another kind: allowed, it begins anew"),
)


def _check(args: ScheduleArguments) -> Iterator[str]:
    if args.warmup_steps > 1 and args.warmup_steps != int(args.warmup_steps):
        wants = "a whole number of steps, or a fraction below 1"
        instead = f"Write {int(args.warmup_steps)}, or for example 0.1 for a tenth of the run."
        yield str(refuse("warmup_steps", args.warmup_steps, wants, instead))


SCHEDULE = Topic(
    ScheduleArguments,
    rules={
        "learning_rate": Number(0, instead="Write a small positive number such as 5e-5."),
        "lr_scheduler_type": Member(SchedulerType),
        "lr_scheduler_kwargs": Settings(),
        "warmup_steps": Number(0, instead="Write 0 for no warm-up, or for example 0.1 for a tenth of the run."),
    },
    check=_check,
    resumed=verdicts(
        (HELD, "learning_rate"),
        (_SHAPE, "lr_scheduler_type"),
        (MATHEMATICS, "lr_scheduler_kwargs warmup_steps"),
    ),
)

"""Output: where everything is written."""

import os
from dataclasses import dataclass, field

from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, verdicts


@dataclass
class OutputArguments:
    """Where checkpoints, logs and the model go."""

    output_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for checkpoints, logs and the trained model; 'trainer_output' where none is given."},
    )


def _normalise(args: OutputArguments) -> None:
    args.output_dir = os.path.expanduser(args.output_dir or "trainer_output")  # noqa: PTH111  (keeps a string)


OUTPUT = Topic(
    OutputArguments,
    normalise=_normalise,
    resumed=verdicts(
        (HARMLESS, "output_dir"),
    ),
)

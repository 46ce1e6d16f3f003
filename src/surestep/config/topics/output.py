"""Output: where everything is written."""

import os
from collections.abc import Iterator
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


def _check(args: OutputArguments) -> Iterator[str]:
    folder = str(args.output_dir)
    if "://" in folder:
        from surestep.runtime.remote_folder import without_password

        url = without_password(folder)
        yield (
            f"output_dir={url!r} is remote, and output_dir is a folder of this machine, where checkpoints are made. "
            f"Write output_dir='<a local folder>' and save_remote={url!r}, where every checkpoint is sent."
        )


OUTPUT = Topic(
    OutputArguments,
    normalise=_normalise,
    check=_check,
    resumed=verdicts(
        (HARMLESS, "output_dir"),
    ),
)

"""Script flags: kept for the user's own script. Of them the trainer reads `resume_from_checkpoint` alone."""

from dataclasses import dataclass, field
from typing import Any

from surestep.config.rules import Text, without_secret
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, verdicts


@dataclass
class ScriptArguments:
    """Flags for the user's own script, and where train() goes on from."""

    do_train: bool = field(default=False, metadata={"help": "For scripts: whether to train."})
    do_eval: bool = field(default=False, metadata={"help": "For scripts: whether to evaluate; set by eval_strategy."})
    do_predict: bool = field(default=False, metadata={"help": "For scripts: whether to predict."})
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint that train() goes on from where it is given nothing: a folder, or auto for the newest."
        },
    )
    local_rank: int = field(default=-1, metadata={"help": "For launchers that pass it; never read."})


def _checkpoint(name: str, value: Any) -> Any:
    """Take a path or a URL; True and False as well, since train() takes them."""
    return value if isinstance(value, bool) else without_secret(name, Text(optional=True)(name, value))


SCRIPT = Topic(
    ScriptArguments,
    rules={"resume_from_checkpoint": _checkpoint},
    resumed=verdicts(
        (HARMLESS, "do_train do_eval do_predict resume_from_checkpoint local_rank"),
    ),
)

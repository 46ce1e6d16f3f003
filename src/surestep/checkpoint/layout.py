"""Names of the files and folders of a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

WEIGHTS: Final = "model.safetensors"
WEIGHTS_INDEX: Final = "model.safetensors.index.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
# Forms of earlier years, which are read and not written.
PICKLED_WEIGHTS: Final = "pytorch_model.bin"
PICKLED_WEIGHTS_INDEX: Final = "pytorch_model.bin.index.json"
PICKLED_ADAPTER_WEIGHTS: Final = "adapter_model.bin"
# Encoders of virtual tokens as they are trained; the adapter's own file holds only what they compute.
PROMPT_ENCODERS: Final = "prompt_encoders.safetensors"
MANIFEST: Final = "manifest.json"
# Read by the original: it holds the original's keys only.
TRAINER_STATE: Final = "trainer_state.json"
TRAINING_ARGUMENTS: Final = "training_args.json"
# Position in the data, counters and whatever else the original has no file for.
PROGRESS: Final = "progress.json"

# Trees (see `checkpoint.tree`): each is `<name>.json`, with `<name>.safetensors` where it holds tensors.
OPTIMIZER: Final = "optimizer"
SCHEDULER: Final = "scheduler"
SCALER: Final = "scaler"
# The seconds that a run with a limit to them has used.
TIME_USED: Final = "time_used"
# What a model's state dict holds beside tensors.
WEIGHTS_EXTRA: Final = "model_extra"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def progress_name(rank: int) -> str:
    """Return the name of the tree with the progress of one process; the main one's is the run's."""
    return f"progress_{rank}" if rank else "progress"


def random_name(rank: int) -> str:
    """Return the name of the tree with the random generators of one process."""
    return f"random_{rank}"


def folder_name(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"checkpoint-{step}"


def step_of(path: Path) -> int | None:
    """Return the step that a folder's name tells, or None where it is not the name of a checkpoint."""
    match = _CHECKPOINT.fullmatch(path.name)
    return int(match.group(1)) if match else None


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the folders named `checkpoint-<step>` in `folder`, the earliest step first."""
    if not folder.is_dir():
        return []
    steps = {path: step for path in folder.iterdir() if (step := step_of(path)) is not None and path.is_dir()}
    return sorted(steps, key=lambda path: (steps[path], path.name))

"""Folders of checkpoints, under the original's names. The trainer's own are kept by `checkpoint.store`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from surestep.checkpoint import files
from surestep.checkpoint.foreign_names import PREFIX_CHECKPOINT_DIR
from surestep.checkpoint.layout import checkpoints_in
from surestep.checkpoint.weights import load_weights
from surestep.errors import CheckpointError
from surestep.logs import get_logger, warn_once

_logger = get_logger(__name__)


def get_last_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """Return the path of the `checkpoint-<step>` in `folder` with the highest step; None where there is none."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{os.fspath(folder)} is not a folder: look for a checkpoint where one was written.")
    found = checkpoints_in(Path(folder))
    return str(found[-1]) if found else None


def sort_checkpoints(
    output_dir: str,
    checkpoint_prefix: str = PREFIX_CHECKPOINT_DIR,
    use_mtime: bool = False,
    best_model_checkpoint: str | None = None,
) -> list[str]:
    """Return the paths of the checkpoints in `output_dir`, the earliest first, by step or time of writing.

    `best_model_checkpoint` is moved to the last place but one, where rotation does not take it. Times that lie within a
    second say nothing; the steps decide then.
    """
    pattern = re.compile(rf"{checkpoint_prefix}-(\d+)")
    steps = {
        str(path): int(match[1])
        for path in Path(output_dir).glob(f"{checkpoint_prefix}-*")
        if path.is_dir() and (match := pattern.match(path.name))
    }
    ordered = sorted(steps, key=lambda path: (steps[path], path))
    if use_mtime:
        ordered = _by_time(ordered)
    best = str(Path(best_model_checkpoint)) if best_model_checkpoint is not None else None
    if best in ordered[:-1]:
        ordered = [*(path for path in ordered[:-1] if path != best), str(best), ordered[-1]]
    return ordered


def _by_time(paths: list[str]) -> list[str]:
    times = {path: Path(path).stat().st_mtime for path in paths}
    if len(paths) > 1 and max(times.values()) - min(times.values()) < 1:
        warn_once(_logger, "The checkpoints were written within a second: they are put in the order of their steps.")
        return paths
    return sorted(paths, key=lambda path: (times[path], path))


def rotate_checkpoints(
    output_dir: str,
    save_total_limit: int | None = None,
    best_model_checkpoint: str | None = None,
    use_mtime: bool = False,
    checkpoint_prefix: str = PREFIX_CHECKPOINT_DIR,
) -> None:
    """Delete the earliest checkpoints beyond `save_total_limit`; the newest and the best stay whatever it says.

    A limit of None or less than 1 deletes nothing.
    """
    if save_total_limit is None or save_total_limit <= 0:
        return
    found = sort_checkpoints(output_dir, checkpoint_prefix, use_mtime)
    safe = {*found[-1:], *([str(Path(best_model_checkpoint))] if best_model_checkpoint is not None else [])}
    excess = len(found) - max(save_total_limit, len(safe))
    for path in [path for path in found if path not in safe][: max(excess, 0)]:
        doomed = Path(path)
        files.remove_named(doomed, doomed.with_name(f".deleting-{doomed.name}"))


class IncompatibleKeys(NamedTuple):
    """What did not fit when weights were loaded: names that the model has and the files lack, and the reverse."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_sharded_checkpoint(
    model: nn.Module, folder: str | os.PathLike[str], strict: bool = True, prefer_safe: bool = True
) -> IncompatibleKeys:
    """Read weights that are spread over several files into `model`; pickled ones as data only.

    Raises:
        CheckpointError: The folder has no index of such files, or (when `strict`) names do not fit.
    """
    root = Path(folder)
    pickled, safe = (root / name for name in ("pytorch_model.bin.index.json", "model.safetensors.index.json"))
    if not pickled.is_file() and not safe.is_file():
        raise CheckpointError(f"{root} has neither {safe.name} nor {pickled.name}: there are no shards to load.")
    if pickled.is_file() and safe.is_file() and not prefer_safe:
        raise CheckpointError(f"{root} holds the weights twice. Leave prefer_safe out: both say the same.")
    report = load_weights(model, root, strict=strict)
    return IncompatibleKeys(report.missing, report.unexpected)


def remove_dummy_checkpoint(is_main_process: bool, output_dir: str, filenames: Iterable[str]) -> None:
    """Remove files from `output_dir`, on the main process; those that are not there are passed over."""
    if is_main_process:
        for name in filenames:
            files.remove(Path(output_dir, name))


def compare_trainer_and_checkpoint_args(training_args: Any, trainer_state: Any) -> None:
    """Warn of intervals and of a batch size that are not those that `trainer_state` was saved with."""
    now = {name: getattr(training_args, name, None) for name in ("logging_steps", "eval_steps", "save_steps")}
    saved: dict[str, Any] = {name: getattr(trainer_state, name, None) for name in now}
    now["per_device_train_batch_size"] = training_args.per_device_train_batch_size
    if trainer_state.train_batch_size is not None:
        saved["per_device_train_batch_size"] = trainer_state.train_batch_size // max(1, training_args.n_gpu)
    changed = [
        f"{name} is {value}, and was {saved[name]}"
        for name, value in now.items()
        if None not in (value, saved.get(name)) and value != saved[name]
    ]
    if changed:
        _logger.warning("The arguments are not those of the checkpoint: %s.", "; ".join(changed))

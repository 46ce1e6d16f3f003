"""The best of each tracked metric: its value, its step, and the checkpoint that holds the model of that step.

`Bests` owns what `track_best` asks for. It travels in checkpoints, in a file of its own, and ends as a summary in the
output folder; what `metric_for_best_model` decides stays in `TrainerState`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.config.enums import IntervalStrategy
from surestep.config.topics.best import grows_better, key_of, tracked
from surestep.errors import CheckpointError
from surestep.logs import announce, get_logger, warn_once
from surestep.metrics.direction import direction_among, direction_of
from surestep.runtime.disk import make_folders, replace_text

if TYPE_CHECKING:
    from surestep.trainer.saves import Saves
    from surestep.trainer.trainer import Trainer

_logger = get_logger(__name__)
BESTS = "best.json"


@dataclass
class Best:
    """The best of one metric so far. `checkpoint` is the folder that holds its step; None where no folder does."""

    greater_is_better: bool
    value: float | None = None
    step: int | None = None
    checkpoint: str | None = None

    def beaten_by(self, value: float) -> bool:
        """Say whether `value` is better. NaN never is, and what is as good comes too late."""
        if self.value is None:
            return not math.isnan(value)
        return value > self.value if self.greater_is_better else value < self.value


class Bests:
    """The bests of a run, by the names that `track_best` gives the metrics."""

    def __init__(self, directions: Mapping[str, bool]) -> None:
        self.by_name = {name: Best(greater) for name, greater in directions.items()}

    def take(self, metrics: Mapping[str, Any], step: int) -> bool:
        """Compare the figures of an evaluation, and say whether one of them is the best so far."""
        found = False
        for name, best in self.by_name.items():
            value = metrics.get(key_of(name))
            if value is None:
                warn_once(
                    _logger,
                    f"An evaluation has no '{key_of(name)}', which track_best asks for: it does not count. It has: "
                    f"{', '.join(metrics) or 'nothing'}.",
                )
            elif best.beaten_by(value):
                best.value, best.step, best.checkpoint = float(value), step, None
                found = True
        return found

    def saving(self, step: int, folder: Path) -> None:
        """Note that the checkpoint of `step` is being written, and that it will be `folder`."""
        for best in self.by_name.values():
            if best.step == step:
                best.checkpoint = str(folder)

    def not_saved(self, step: int) -> None:
        """Note that the checkpoint of `step` came to nothing."""
        for best in self.by_name.values():
            if best.step == step:
                best.checkpoint = None

    def folders(self) -> Iterator[Path]:
        """Yield the checkpoints that must not go."""
        for best in self.by_name.values():
            if best.checkpoint is not None:
                yield Path(best.checkpoint)

    def write(self, folder: Path) -> None:
        """Write the bests to `best.json` in `folder`."""
        described = {name: asdict(best) for name, best in self.by_name.items()}
        replace_text(folder / BESTS, json.dumps(described, indent=2) + "\n")

    def read(self, checkpoint: Path) -> None:
        """Go on from what a checkpoint knows of the same metrics.

        A metric whose direction was changed begins anew, and so does one that the checkpoint does not know.
        """
        path = checkpoint / BESTS
        for name, known in (_read(path) if path.is_file() else {}).items():
            wanted = self.by_name.get(name)
            if wanted is None:
                continue
            if wanted.greater_is_better != known.greater_is_better:
                _logger.warning("track_best: '%s' grew better the other way in '%s': it begins anew.", name, path)
                continue
            known.checkpoint = _found(name, known.checkpoint, beside=checkpoint)
            self.by_name[name] = known

    def conclude(self, folder: Path, saves: Saves) -> None:
        """Say in one line what was best, and write it into the run's folder; the main process does it."""

        def write() -> None:
            announce(_logger, f"Best: {'; '.join(self._lines())}.")
            make_folders(folder)
            self.write(folder)

        saves.write_beside(BESTS, write)

    def _lines(self) -> Iterator[str]:
        for name, best in self.by_name.items():
            if best.value is None:
                yield f"{name}: no evaluation gave a number"
            else:
                where = f" ({Path(best.checkpoint).name})" if best.checkpoint else ""
                yield f"{name} {best.value:.6g} at step {best.step}{where}"


def _found(name: str, folder: str | None, beside: Path) -> str | None:
    """Return where a checkpoint is today: its run's folder may have moved, as a whole, with the one resumed from."""
    if folder is None:
        return None
    for path in (Path(folder), beside.parent / Path(folder).name):
        if path.is_dir():
            return str(path)
    _logger.warning("The checkpoint of the best '%s', '%s', is gone; it is not looked for any more.", name, folder)
    return None


def _read(path: Path) -> dict[str, Best]:
    try:
        return {name: Best(**values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"'{path}' does not hold the bests of a run ({error}). Resume from another checkpoint, or leave track_best "
            "out."
        ) from error


def settle_directions(trainer: Trainer) -> Bests | None:
    """Settle which way each metric that decides something grows better; return the bests where some are tracked.

    What the user declares counts; then what a metric in `metrics` says of itself; then its name. A guess is announced.
    """
    args = trainer.args
    name, declared = args.metric_for_best_model, "greater_is_better" in args._given
    if name is not None and not declared and args.eval_strategy != IntervalStrategy.NO:
        # Around the arguments' own setter: this is not written by the user, who may set another metric later.
        vars(args)["greater_is_better"] = _direction(trainer, name, "greater_is_better=True or False")
    directions = {}
    for entry in args.track_best or ():
        figure, greater = tracked(entry)
        if greater is None and declared and name is not None and key_of(figure) == key_of(name):
            greater = args.greater_is_better
        directions[figure] = (
            _direction(trainer, figure, f'track_best=["{figure}:max"] or ["{figure}:min"]')
            if greater is None
            else greater
        )
    return Bests(directions) if directions else None


def _direction(trainer: Trainer, name: str, declaration: str) -> bool:
    said = direction_among(name, trainer._metric_objects())
    said = direction_of(name) if said is None else said
    if said is None:
        said = grows_better(name)
        _announce_guess(name, "more" if said else "less", declaration)
    return said


@cache
def _announce_guess(name: str, better: str, declaration: str) -> None:
    announce(
        _logger, f"'{name}' is taken to be the better for {better} of it, which is a guess. Declare it: {declaration}."
    )

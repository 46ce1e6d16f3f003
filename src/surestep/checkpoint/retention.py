"""Which checkpoints of a run stay. The manifests say which run wrote each, at which step, and how good it was."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint of the run: its folder, its step, and the figure of the metric, where one was measured there."""

    path: Path
    step: int
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays: the last so many, the best so many, and the first of every so many steps. Each adds to the others.

    Where only the latter two are set, the newest stays besides, to go on from. Nothing set keeps everything.
    """

    last: int | None = None
    best: int | None = None
    every: int | None = None
    greater_is_better: bool = False

    def spare(self, kept: Sequence[Kept], newest: Path | None, protect: Collection[Path]) -> list[Path]:
        """Return those that need not stay, the earliest step first.

        `newest` and those to `protect` stay in any case. Without a `newest` there are no last ones. What is protected
        counts among the last ones, as the best model does in the original's limit, unless the best are kept besides.
        """
        last = self._last
        if last is None:
            return []
        safe = {path.resolve() for path in protect}
        held = (set() if self.best else set(safe)) | ({newest.resolve()} if newest is not None else set())
        also = {item.path for item in [*self.best_of(kept), *self._milestones(kept)]}
        also |= {item.path for item in kept if item.path.resolve() in safe}
        loose = [item.path for item in kept if item.path.resolve() not in held]
        excess = len(kept) - max(0 if newest is None else last, len(kept) - len(loose))
        return [path for path in loose[: max(excess, 0)] if path not in also]

    def best_of(self, kept: Sequence[Kept]) -> list[Kept]:
        """Return the best ones, the best first; of equals the earlier one."""
        measured = [item for item in kept if item.score is not None]
        sign = -1 if self.greater_is_better else 1
        return sorted(measured, key=lambda item: (sign * (item.score or 0.0), item.step))[: self.best or 0]

    def would_stay(self, score: float, kept: Sequence[Kept]) -> bool:
        """Say whether a checkpoint with this figure would be among the best; one that is no finite number never is."""
        if not math.isfinite(score):
            return False
        new = Kept(Path(), max((item.step for item in kept), default=0) + 1, score)
        return new in self.best_of([*kept, new])

    def at_most(self, saves: int, steps: int, protected: int) -> int:
        """Return how many checkpoints there are at a time, the one being written included.

        Args:
            saves: How many the run writes.
            steps: How many steps it makes.
            protected: How many stay for another reason, such as the best of the run.
        """
        if self._last is None:
            return saves
        stay = self._last + self.best + protected if self.best else max(self._last, 1 + protected)
        milestones = steps // self.every if self.every else 0
        return min(saves, stay + milestones + 1)

    @property
    def spares(self) -> bool:
        """Whether anything is ever deleted."""
        return self._last is not None

    @property
    def _last(self) -> int | None:
        if self.last is not None and self.last > 0:
            return self.last
        return 1 if self.best or self.every else None

    def _milestones(self, kept: Sequence[Kept]) -> list[Kept]:
        """Return the first checkpoint at or after each multiple of `every`."""
        firsts: dict[int, Kept] = {}
        for item in kept:
            if self.every and item.step >= self.every:
                firsts.setdefault(item.step // self.every, item)
        return list(firsts.values())

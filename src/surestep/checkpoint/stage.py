"""Where one checkpoint is written before it counts, and what a run that died leaves of such places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from surestep.checkpoint import files, layout
from surestep.logs import get_logger
from surestep.runtime.disk import disk, make_folders

_logger = get_logger(__name__)
_LEFTOVER = re.compile(r"\.(staging|deleting|replaced)-(checkpoint-\d+)")
# Signs that the processes leave for each other in a stage's root.
_DONE = ".done-"
_COMMITTED = ".committed"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one checkpoint is written before it counts. `root` stands for the run's folder, `folder` lies within it.

    `score` is the figure of the metric for the best model at this step, where one was measured.
    """

    step: int
    root: Path
    score: float | None = None

    @property
    def folder(self) -> Path:
        """The checkpoint to be, under the name that it will have."""
        return self.root / layout.folder_name(self.step)

    def sign(self, rank: int) -> None:
        """Say that the process of `rank` has written its part."""
        disk().write(self.root / f"{_DONE}{rank}", [])

    def unsigned(self, size: int) -> list[int]:
        """Return the ranks that have not written their part."""
        return [rank for rank in range(size) if not (self.root / f"{_DONE}{rank}").exists()]

    def seal(self) -> None:
        """Say that the checkpoint is committed, by giving a sign that is there another name: that needs no room."""
        disk().rename(self.root / f"{_DONE}0", self.root / _COMMITTED)

    @property
    def sealed(self) -> bool:
        """Whether the main process committed it."""
        return (self.root / _COMMITTED).exists()

    def move_extras(self, target: Path) -> None:
        """Move the files that were written beside the checkpoint to where they were meant to be."""
        for path in list(self._extras()):
            place = target / path.relative_to(self.root)
            make_folders(place.parent)
            files.rename(path, place)

    def _extras(self) -> Iterator[Path]:
        for path in files.files_in(self.root):
            if not path.is_relative_to(self.folder) and not path.name.startswith((_DONE, _COMMITTED)):
                yield path


def staging_of(root: Path, step: int) -> Path:
    """Return the folder in which the checkpoint of a step is written."""
    return root / f".staging-{layout.folder_name(step)}"


def deleting_of(path: Path) -> Path:
    """Return the name of a checkpoint while it is deleted."""
    return path.with_name(f".deleting-{path.name}")


def replaced_of(path: Path) -> Path:
    """Return the name of a checkpoint until another has taken its place."""
    return path.with_name(f".replaced-{path.name}")


def tidy(root: Path) -> None:
    """Clear everything that runs that died left half-done."""
    for path in sorted(root.iterdir()):
        if _LEFTOVER.fullmatch(path.name):
            clear(path)


def clear(path: Path) -> None:
    """Remove what is half-done, if it is there; a checkpoint that was about to be replaced gets its name back."""
    match = _LEFTOVER.fullmatch(path.name)
    assert match is not None
    target = path.with_name(match.group(2))
    if match.group(1) == "replaced" and path.is_dir() and not target.exists():
        files.rename(path, target)
        _logger.warning("%s was about to be replaced, and what should take its place failed: it is back.", target)
    else:
        files.remove(path)

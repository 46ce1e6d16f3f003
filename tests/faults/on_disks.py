"""What a process of its own does on a disk that really is full, read-only or limited: trainings, and what they say.

Run as `python -m tests.faults.on_disks FOLDER CASE...`; prints a line of JSON for each case.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surestep import TrainerCallback
from surestep.checkpoint.layout import checkpoints_in
from surestep.errors import CheckpointError
from surestep.runtime.world import World
from tests.small import quick

BROKEN, MENDED = 4, 7


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (2**14, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def protect(disk: Path) -> None:
    """Put a read-only view of the disk in its place: what is open already does not hinder that."""
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)


def unprotect(disk: Path) -> None:
    subprocess.run(["umount", str(disk)], check=True)


# How the disk breaks, and how it is mended.
WAYS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "full": (fill, lambda disk: (disk / "filler").unlink()),
    "limited": (lambda disk: limit(2000), lambda disk: limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])),
    "read-only": (protect, unprotect),
}


class Breaks(TrainerCallback):
    """Breaks the disk before a save, or with `within` in the middle of it."""

    def __init__(self, disk: Path, way: str, *, within: bool) -> None:
        self.disk, self.within = disk, within
        self.break_it, self.mend_it = WAYS[way]
        self.step = 0
        self.left: list[list[str]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.left.append(there(Path(args.output_dir)))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step
        if self.step == BROKEN and not self.within:
            self.break_it(self.disk)
        if self.step == MENDED:
            self.mend_it(self.disk)

    def save_to(self, folder: Path) -> None:
        if self.step == BROKEN and self.within:
            self.break_it(self.disk)


def there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*checkpoint*"))


class _Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.lines.append(record.getMessage())


def run(disk: Path, case: str) -> dict[str, Any]:
    way, _, when = case.partition(",")
    told = _Told()
    logging.getLogger("surestep").addHandler(told)
    folder = disk / case.replace(",", "-")
    breaks = Breaks(disk, way, within=when == "within")
    trainer = quick(folder, save_strategy="steps", save_steps=2, num_train_epochs=2, callbacks=[breaks])
    trainer.train()
    store = trainer._store
    return {
        "case": case,
        "step": trainer.state.global_step,
        "weights": trainer.model.layer.weight.flatten().tolist(),
        "told": told.lines,
        "after": breaks.left[BROKEN],
        "there": there(folder),
        "whole": all(not store.verify(path) for path in checkpoints_in(folder)),
    }


def refused(disk: Path) -> dict[str, Any]:
    """Begin a run where nothing can be written."""
    trainer = quick(disk / "refused", save_strategy="steps")
    protect(disk)
    try:
        trainer.train()
    except CheckpointError as error:
        return {"case": "refused", "text": f"{type(error).__name__}: {error}", "step": trainer.state.global_step}
    finally:
        unprotect(disk)
    return {"case": "refused", "text": ""}


def hold(folder: Path) -> dict[str, Any]:
    """Train until a line comes in, in a folder that is this process's all the while."""
    trainer = quick(folder, save_strategy="steps", save_steps=2)
    with trainer.steps() as steps:
        for state in steps:
            if state.global_step == 2:
                print("holding", os.getpid(), flush=True)
                sys.stdin.readline()
    return {"case": "hold", "there": there(folder)}


def main() -> None:
    assert World().is_main
    disk = Path(sys.argv[1])
    special = {"refused": refused, "hold": hold}
    for case in sys.argv[2:]:
        result = special[case](disk) if case in special else run(disk, case)
        print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

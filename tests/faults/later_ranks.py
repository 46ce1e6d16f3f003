"""What runs on every rank: trainings whose saves are finished by a thread, which is slow or fails on one of them."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from surestep import TrainerCallback
from surestep.errors import SurestepError
from surestep.runtime.disk import Disk, writing_through
from tests.small import quick

SETTINGS: dict[str, Any] = {
    "save_async": True,
    "save_strategy": "steps",
    "save_steps": 2,
    "per_device_train_batch_size": 2,
    "num_train_epochs": 2,
    "ddp_find_unused_parameters": False,
}


class Uneven(Disk):
    """On one rank the writing thread is slow, or fails at the checkpoint of step 4."""

    def __init__(self, rank: int = -1, seconds: float = 0.0, *, fails: bool = False) -> None:
        self.applies = int(os.environ["RANK"]) == rank
        self.seconds, self.fails = seconds, fails

    def write(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        if self.applies and threading.current_thread().name == "surestep-writer":
            time.sleep(self.seconds)
            if self.fails and "checkpoint-4" in path.parts:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        super().write(path, parts)


class Hears(TrainerCallback):
    """Notes which step each save was of, and at which step it was told; signals itself where it is told to."""

    def __init__(self, signals: bool) -> None:
        self.saved: list[int] = []
        self.told_at: list[int] = []
        self.signals = signals
        self.trainer: Any = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved.append(state.global_step)
        self.told_at.append(self.trainer.state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # So long that something is written within a step.
        time.sleep(0.02)
        if self.signals and state.global_step == 5 and int(os.environ["RANK"]) == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def run(folder: Path, disk: Disk, *, signals: bool = False, **settings: Any) -> dict[str, Any]:
    hears = Hears(signals)
    trainer = hears.trainer = quick(folder, **{**SETTINGS, "callbacks": [hears], **settings})
    text = ""
    with writing_through(disk):
        try:
            trainer.train()
        except (SurestepError, SystemExit) as raised:
            text = f"{type(raised).__name__}: {raised}"
    trainer._world.barrier()
    weights = trainer.model.layer.weight.detach().numpy().tobytes()
    return {
        "step": trainer.state.global_step,
        "text": text,
        "there": sorted(path.name for path in folder.glob("*checkpoint*")),
        "saved": hears.saved,
        "told_at": hears.told_at,
        "weights": hashlib.blake2b(weights).hexdigest(),
        "left": [thread.name for thread in threading.enumerate() if thread.name.startswith("surestep")],
    }


def work(folder: Path) -> dict[str, Any]:
    return {
        "at once": run(folder / "at-once", Uneven(), save_async=False),
        "later": run(folder / "later", Uneven()),
        "main slow": run(folder / "main-slow", Uneven(0, 0.05), save_steps=4),
        "other slow": run(folder / "other-slow", Uneven(1, 0.05), save_steps=4),
        "main fails": run(folder / "main-fails", Uneven(0, fails=True)),
        "other fails": run(folder / "other-fails", Uneven(1, fails=True)),
        "other stops": run(folder / "other-stops", Uneven(1, fails=True), on_save_error="stop"),
        "signal": run(folder / "signal", Uneven(1, 0.05), save_steps=4, signals=True),
    }

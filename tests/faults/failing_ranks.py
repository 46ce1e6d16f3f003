"""What runs on every rank: trainings in which a save fails on one of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from surestep import Trainer
from surestep.errors import SurestepError
from tests.small import quick

SETTINGS: dict[str, Any] = {
    "save_strategy": "steps",
    "save_steps": 2,
    "per_device_train_batch_size": 2,
    "num_train_epochs": 2,
    "ddp_find_unused_parameters": False,
}


class Fails(Trainer):
    """Its save of step 4 fails on one rank."""

    rank = 0
    error: Exception = OSError()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.state.global_step == 4 and int(os.environ["RANK"]) == self.rank:
            raise self.error


def run(folder: Path, rank: int, error: Exception, policy: str) -> dict[str, Any]:
    trainer = quick(folder, Fails, on_save_error=policy, **SETTINGS)
    trainer.rank, trainer.error = rank, error  # type: ignore[misc]
    text = ""
    try:
        trainer.train()
    except (SurestepError, ZeroDivisionError) as raised:
        text = f"{type(raised).__name__}: {raised}"
    trainer._world.barrier()
    there = sorted(path.name for path in folder.glob("*checkpoint*"))
    return {"step": trainer.state.global_step, "text": text, "there": there, "asked": trainer.control.should_save}


def work(folder: Path) -> dict[str, Any]:
    full = OSError(errno.ENOSPC, "No space left on device")
    cases = {
        "main goes on": (0, full, "continue"),
        "other goes on": (1, full, "continue"),
        "other stops": (1, full, "stop"),
        "other has a bug": (1, ZeroDivisionError("a bug"), "continue"),
    }
    return {name: run(folder / name.replace(" ", "-"), *case) for name, case in cases.items()}

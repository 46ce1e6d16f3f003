"""The same command on every rank, again and again: `resume_from_checkpoint="auto"` on two ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from surestep import Trainer, TrainerCallback, TrainingArguments
from tests.small import Points, line


class BreaksOff(TrainerCallback):
    """Breaks off on every rank, without a save."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def start(folder: Path, step: int, **settings: Any) -> dict[str, Any]:
    """Start a run of five steps, which breaks off after one of them, or never where that is 0."""
    args = TrainingArguments(
        str(folder), per_device_train_batch_size=2, num_train_epochs=1, save_strategy="steps", save_steps=2,
        use_cpu=True, disable_tqdm=True, report_to="none", **settings,
    )  # fmt: skip
    trainer = Trainer(line(), args, train_dataset=Points(), callbacks=[BreaksOff(step)] if step else [])
    try:
        trainer.train(resume_from_checkpoint="auto")
    except KeyboardInterrupt:
        return {"broke_off": True}
    report = trainer.resume_report
    return {
        "step": trainer.state.global_step,
        "report": None if report is None else report.to_dict(),
        "output": tuple(trainer.train_output or ()),
        "weight": trainer.model.layer.weight.detach().clone(),
    }


def work(folder: Path) -> dict[str, Any]:
    """Start three times what breaks off, to its end, and once more; and once as if nothing had been."""
    run = Path(folder).parent / "run"
    broke_off = [start(run, step) for step in (1, 3)]
    ended, again = start(run, 0), start(run, 0)
    torch.distributed.barrier()
    refused = ""
    try:
        start(run, 0, resume_strict=True, max_grad_norm=0.1, max_steps=8)
    except ValueError as error:
        refused = str(error)
    return {
        "broke_off": broke_off,
        "ended": ended,
        "again": again,
        "refused": refused,
        "whole": start(Path(folder).parent / "whole", 0),
    }

"""Trainings that save at every step and write down what each micro-batch held, to compare every attempt."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

import surestep
from tests.parity.models import Net, Points

TRACE = "trace.jsonl"


class Augmented(Points):
    """Points to which each of the three random modules adds something."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        noise = random.random() + float(np.random.random()) + float(torch.rand(()))
        return {**sample, "x": sample["x"] + 0.01 * noise}


class Stream(IterableDataset):
    """Points one after the other, without a length."""

    def __init__(self, size: int = 30) -> None:
        self.points = Points(size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.points[index] for index in range(len(self.points)))


class Traced(surestep.Trainer):
    """Writes the samples and the loss of each micro-batch into the output folder, before its step is made."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        numbers = inputs["number"].tolist()
        loss = super().training_step(model, inputs, num_items_in_batch)
        line = json.dumps({"step": self.state.global_step, "numbers": numbers, "loss": loss.item()}) + "\n"
        handle = os.open(Path(str(self.args.output_dir)) / TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)
        return loss


STEPS = 40
_COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 2,
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
}
_EVALUATED = {
    "eval_strategy": "steps",
    "eval_steps": 3,
    "gradient_accumulation_steps": 2,
    "load_best_model_at_end": True,
    "lr_scheduler_type": "cosine",
}
# By name: arguments, and what is trained on.
ROWS: dict[str, tuple[dict[str, Any], Any]] = {
    "augmented": ({}, Augmented),
    "evaluated": (_EVALUATED, Augmented),
    "stream": ({"gradient_accumulation_steps": 2}, Stream),
    # Its reference is "augmented": when something is written changes nothing.
    "beside": ({"save_async": True}, Augmented),
}
AT_ONCE = [row for row in ROWS if row != "beside"]


def run(folder: Path, case: dict[str, Any]) -> None:
    """Train a row from its beginning or from wherever it came to, as the same command does each time.

    With `remote` in the case, every checkpoint is sent to that URL as well.
    """
    arguments, data = ROWS[case["row"]]
    length = {"max_steps": case.get("steps", STEPS)}
    torch.manual_seed(3)
    trainer = Traced(
        model=Net(0.3),
        args=surestep.TrainingArguments(
            str(folder), **{**_COMMON, **arguments, **length}, save_remote=case.get("remote")
        ),
        train_dataset=data(30),
        eval_dataset=Points(9, seed=1),
    )
    trainer.train(resume_from_checkpoint="auto")

"""What runs on every rank: a training of one step over a whole set, for each way to give a loss."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from surestep import Trainer, TrainerCallback, TrainingArguments
from tests.distributed import one_gradient as og

# Samples, and how many of them the micro-batches of all ranks together hold: the second leaves ranks without one.
LAYOUTS = {"ragged": (23, 6), "lacking": (25, 12)}


def whole(layout: str) -> og.Batch:
    return og.batch_of(LAYOUTS[layout][0], seed=5)


class Rows(Dataset):
    def __init__(self, batch: og.Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["tokens"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[index] for name, value in self.batch.items()}


class Gradient(TrainerCallback):
    """Copies the gradient that the optimizer is given."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.value = og.flat(kwargs["model"]).clone()


def trained(folder: Path, way: og.Way, layout: str) -> dict[str, Any]:
    size, together = LAYOUTS[layout]
    callback = Gradient()
    args = TrainingArguments(
        str(folder),
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        remove_unused_columns=False,
        optim="sgd",
        max_grad_norm=0,
        num_train_epochs=1,
        logging_steps=1,
        per_device_train_batch_size=together // int(os.environ["WORLD_SIZE"]),
        gradient_accumulation_steps=-(-size // together),
        **dict(way.arguments),
    )
    kwargs = {"train_dataset": Rows(whole(layout)), "callbacks": [callback], "compute_loss_func": way.function}
    trainer: Trainer = way.kind(way.model(), args, **kwargs)
    trainer.train()
    logged = {name: value for name, value in trainer.state.log_history[0].items() if name.startswith("loss")}
    return {"gradient": callback.value, "steps": trainer.state.global_step, "logged": logged}


def work(folder: Path) -> dict[str, Any]:
    """Train each way in each layout, in one group of processes."""
    torch.manual_seed(0)
    return {layout: {name: trained(folder, way, layout) for name, way in og.WAYS.items()} for layout in LAYOUTS}

"""What runs on every rank: looking for a batch size while one rank runs out of memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surestep import Trainer
from tests.distributed.mistaken import Numbered, raised
from tests.distributed.training import arguments

SIZE = 100


class Hungry(nn.Module):
    """Has no memory for more than so many samples: on rank 1, in forward, in backward or in the optimizer's step."""

    def __init__(self, fits: int, where: str) -> None:
        super().__init__()
        torch.manual_seed(torch.distributed.get_rank())
        self.layer, self.norm, self.dropout = nn.Linear(3, 1), nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.fits, self.where = fits, where
        self.tried: list[int] = []
        self.double()

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Tensor]:
        self.tried.append(len(x))
        logits = self.layer(self.norm(self.dropout(x.double())))
        # Not at once: some steps of the attempt are made.
        full = torch.distributed.get_rank() == 1 and len(x) > self.fits and len(self.tried) > 2
        if full and self.where == "forward":
            raise torch.OutOfMemoryError("no memory")
        if full and self.where == "backward":
            logits.register_hook(fail)
        self.layer.weight.starved = full and self.where == "step"
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.mse_loss(logits, labels.double()), "logits": logits}


def fail(grad: Tensor) -> Tensor:
    raise RuntimeError("CUDA error: out of memory")


class Starving(torch.optim.SGD):
    """Raises where the model says that there is no memory."""

    def step(self, closure: Any = None) -> Any:
        if getattr(self.param_groups[0]["params"][0], "starved", False):
            raise torch.OutOfMemoryError("no memory for the state")
        return super().step(closure)


def trained(
    folder: Path, name: str, model: nn.Module, batch: int, kind: type[Trainer] = Trainer, **given: Any
) -> dict[str, Any]:
    parts = {key: given.pop(key) for key in ("compute_loss_func",) if key in given}
    settings = {"num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.05, **given}
    args = arguments(folder, name, per_device_train_batch_size=batch, **settings)
    trainer = kind(
        model,
        args,
        train_dataset=Numbered(SIZE),
        optimizer_cls_and_kwargs=(Starving, {"lr": 0.05, "momentum": 0.9}),
        **parts,
    )
    trainer.train()
    log = [
        {key: entry[key] for key in ("loss", "grad_norm", "step") if key in entry}
        for entry in trainer.state.log_history
    ]
    return {
        "weights": {key: value.clone() for key, value in model.state_dict().items()},
        "log": log,
        "size": trainer.state.train_batch_size,
        "most": max(getattr(model, "tried", [0])),
        "wrapped": isinstance(trainer.model_wrapped, nn.parallel.DistributedDataParallel),
    }


def both(folder: Path, where: str, **given: Any) -> dict[str, Any]:
    """Look for the size, and train with the one found."""
    looked = trained(folder, f"{where}-looked", Hungry(6, where), 8, auto_find_batch_size=True, **given)
    return {"looked": looked, "plain": trained(folder, f"{where}-plain", Hungry(100, where), looked["size"], **given)}


def nothing_fits(folder: Path) -> None:
    model = Hungry(0, "forward")
    model.norm = nn.Identity()
    trained(folder, "none", model, 2, auto_find_batch_size=True)


def pairs(outputs: Any, labels: Tensor, **_: Any) -> Any:
    """A loss over the labels above 0, which micro-batches have more or fewer of; a second one over all samples."""
    counted = labels > 0
    errors = (outputs["logits"] - labels).square()
    return {
        "loss": ((errors * counted).sum(), counted.sum()),
        "size": (outputs["logits"].abs().sum(), len(labels)),
    }


class Weighs(Trainer):
    """Tells what its pairs weigh before the forward."""

    def weigh_loss(self, inputs: Any) -> Any:
        return {"loss": (inputs["labels"] > 0).sum(), "size": len(inputs["labels"])}


class OnTheWay(Trainer):
    """Runs out of memory on rank 1 where the others are not asked."""

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("no memory for the log")


def elsewhere(folder: Path) -> dict[str, Any]:
    args = arguments(folder, "elsewhere", auto_find_batch_size=True)
    return raised(OnTheWay(Hungry(100, ""), args, train_dataset=Numbered(8)).train)


def meeting(folder: Path) -> dict[str, Any]:
    args = arguments(folder, "meeting", auto_find_batch_size=True)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(Hungry(100, ""))
    return raised(Trainer(model, args, train_dataset=Numbered(8)).train)


def work(folder: Path) -> dict[str, Any]:
    """Run out of memory in every place."""
    logging.getLogger("surestep").setLevel(logging.ERROR)
    # Joins the processes.
    Trainer(nn.Linear(1, 1), arguments(folder, "first"))
    return {
        "forward": both(folder, "forward"),
        "backward": both(folder, "backward", gradient_accumulation_steps=2),
        "step": both(folder, "step"),
        "pairs": both(
            folder, "forward", compute_loss_func=pairs, gradient_accumulation_steps=2, remove_unused_columns=False
        ),
        "weighed": both(folder / "weighed", "forward", compute_loss_func=pairs, kind=Weighs),
        "nothing": raised(lambda: nothing_fits(folder)),
        "elsewhere": elsewhere(folder),
        "meeting": meeting(folder),
    }

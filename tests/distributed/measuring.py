"""What runs on every rank: evaluations by metrics, on disk, in folders, of grouped sets and of objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import Dataset

from surestep import Trainer, load_predictions
from tests.distributed.training import Sentences, Tagger, arguments, size_of_world

NAMES = ["accuracy", "f1", "mcc", "auroc", "perplexity", "iou"]
SIZES = (1, 5, 13)


class Ragged(Dataset):
    """Sentences of many lengths; the label is the number of the sample."""

    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": torch.arange(1 + range(13)[index] * 5 % 8), "labels": index}


def pad(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    tokens = nn.utils.rnn.pad_sequence([sample["input_ids"] for sample in samples], batch_first=True)
    return {"input_ids": tokens, "labels": torch.tensor([sample["labels"] for sample in samples])}


class Copies(nn.Module):
    """Gives back what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        return {"loss": self.weight * input_ids.float().mean(), "logits": self.weight * input_ids}


class Items(Copies):
    """Gives a list with an item for each sample."""

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        outputs = super().forward(input_ids)
        return {**outputs, "logits": [{"sum": row.sum(), "length": len(row)} for row in outputs["logits"].detach()]}


def figures(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "second" not in name and "time" not in name}


def measured(folder: Path, size: int, **given: Any) -> dict[str, float]:
    args = arguments(folder, "measured", per_device_eval_batch_size=2)
    return figures(Trainer(Tagger(), args, eval_dataset=Sentences(size), **given).evaluate())


def of_torchmetrics() -> list[Any]:
    classes = torchmetrics.classification
    return [
        classes.MulticlassF1Score(12),
        classes.MulticlassAUROC(12),
        classes.MulticlassRecall(12, average="weighted"),
    ]


def spilled(folder: Path) -> dict[str, Any]:
    """Let a metric function have its arrays from disk."""
    kinds: list[str] = []

    def right(given: Any) -> dict[str, float]:
        kinds.append(type(given.predictions).__name__)
        return {"sum": float(np.asarray(given.predictions, np.float64).sum()), "count": len(given.label_ids)}

    args = arguments(folder, "spilled", per_device_eval_batch_size=2, eval_spill_bytes=100)
    metrics = Trainer(Tagger(), args, eval_dataset=Sentences(13), compute_metrics=right).evaluate()
    return {"kinds": kinds, "metrics": figures(metrics)}


def grouped(folder: Path) -> dict[str, Any]:
    """Predict a set whose batches are grouped by length: returned, and written to a folder."""
    args = arguments(folder, "grouped", per_device_eval_batch_size=2, train_sampling_strategy="group_by_length")
    trainer = Trainer(Copies(), args, data_collator=pad)
    returned = trainer.predict(Ragged())
    trainer.predict(Ragged(), output_dir=folder / "shards")
    read = load_predictions(folder / "shards")
    files = sorted(path.name for path in (folder / "shards").iterdir())
    return {
        "labels": returned.label_ids.tolist(),
        "predictions": torch.from_numpy(returned.predictions),
        "read": torch.from_numpy(read.predictions),
        "read labels": read.label_ids.tolist(),
        "files": files,
    }


def objects(folder: Path) -> list[list[float]]:
    args = arguments(folder, "objects", per_device_eval_batch_size=2, eval_use_gather_object=True)
    predictions = Trainer(Items(), args, data_collator=pad).predict(Ragged()).predictions
    return [[float(one["sum"]), one["length"]] for one in predictions]


def trained(folder: Path) -> list[Any]:
    args = arguments(folder, "trained", per_device_train_batch_size=6 // size_of_world(), num_train_epochs=1)
    given = {"train_metrics": ["accuracy", *of_torchmetrics()[:1]]}
    trainer = Trainer(Tagger(), args, train_dataset=Sentences(20), **given)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "accuracy" in entry]
    return [[entry["accuracy"], entry["multiclass_f1_score"]] for entry in logged]


def work(folder: Path) -> dict[str, Any]:
    """Do everything that the tests look at, in one group of processes."""
    return {
        "named": {str(size): measured(folder, size, metrics=NAMES) for size in SIZES},
        "objects of torchmetrics": {str(size): measured(folder, size, metrics=of_torchmetrics()) for size in SIZES},
        "intervals": measured(folder, 13, metrics=["accuracy", "f1", "auroc"], metrics_confidence=0.9),
        "spilled": spilled(folder),
        "grouped": grouped(folder),
        "items": objects(folder),
        "trained": trained(folder),
    }

"""What runs on every rank: mistakes that one rank meets, or all; each is caught, and the next one is made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from surestep import Trainer
from tests.distributed.training import Sentences, Tagger, arguments
from tests.small import Line, Points


class TinyForSequenceClassification(nn.Module):
    """Two classes, as its configuration says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.config = SimpleNamespace(num_labels=2, problem_type=None)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Numbered(Points):
    """Points that know their number; `labels` and other columns may be changed for one of them."""

    def __init__(self, size: int = 12, **changed: Any) -> None:
        super().__init__(size)
        self.number = changed.pop("number", -1)
        self.changed = changed

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = {**super().__getitem__(index), "number": index}
        return {**sample, **self.changed} if index == self.number else sample


class Fails(Line):
    """Fails for the batch that holds a sample; with `loss` it returns one that is not finite in the place of that."""

    def __init__(self, number: int, *, training: bool = True, error: Exception | None = None) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.number, self.only_in_training, self.error = number, training, error

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Tensor]:
        outputs = super().forward(x, labels)
        if number is None or self.training is not self.only_in_training or not (number == self.number).any():
            return outputs
        if self.error is not None:
            raise self.error
        return {**outputs, "loss": outputs["loss"] * torch.nan}


class Classes(Dataset):
    """Points of two classes, of which one sample may have another."""

    def __init__(self, number: int, label: int) -> None:
        self.number, self.label = number, label

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.ones(3), "labels": torch.tensor(self.label if index == self.number else index % 2)}


def unlabelled(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Lose the labels of the batch that holds the third sample."""
    batch = torch.utils.data.default_collate(samples)
    if (batch["number"] == 2).any():
        raise ValueError("this batch cannot be made")
    return batch


def table(*names: str) -> Any:
    return datasets.Dataset.from_dict({name: [[0.0] * 3] * 8 if name == "x" else [0, 1] * 4 for name in names})


def frozen() -> nn.Module:
    model = Line()
    model.requires_grad_(False)
    return model


def fails(prediction: Any) -> dict[str, float]:
    raise ZeroDivisionError("this metric cannot be computed")


EVALUATED: dict[str, Any] = {"eval_strategy": "epoch", "eval_dataset": Points(6)}
# In order, two samples a batch: rank 1 has the samples 2 and 3 of a round of 4.
MISTAKES: dict[str, Callable[[], dict[str, Any]]] = {
    "no labels in a table": lambda: {"model": TinyForSequenceClassification(), "train_dataset": table("x", "category")},
    "a label beyond the classes in a table": lambda: {
        "model": TinyForSequenceClassification(),
        "train_dataset": table("x", "labels").map(lambda sample, index: {"labels": index}, with_indices=True),
    },
    "a label beyond the classes on one rank": lambda: {
        "model": TinyForSequenceClassification(),
        "train_dataset": Classes(2, 7),
    },
    "no sample": lambda: {"train_dataset": Points(0)},
    "fewer samples than ranks": lambda: {"train_dataset": Points(1)},
    "no sample to evaluate": lambda: {"eval_strategy": "epoch", "eval_dataset": Points(0)},
    "nothing to train": lambda: {"model": frozen()},
    "a batch that cannot be made on one rank": lambda: {
        "train_dataset": Numbered(),
        "model": Fails(-1),
        "data_collator": unlabelled,
    },
    "a metric that no evaluation gives": lambda: {
        **EVALUATED,
        "metric_for_best_model": "f2",
        "compute_metrics": lambda _: {"f1": 1.0},
    },
    "a metric that fails": lambda: {**EVALUATED, "compute_metrics": fails},
    "an evaluation that fails on one rank": lambda: {
        "model": Fails(2, training=False, error=RuntimeError("not in this mode")),
        "eval_strategy": "epoch",
        "eval_dataset": Numbered(6),
    },
}
# What a preflight finds besides: that of one rank, and of all.
PLANTED: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": lambda: {"model": Fails(-1), "train_dataset": Numbered(), **EVALUATED, "save_strategy": "epoch"},
    "a forward that fails on one rank": lambda: {
        "model": Fails(2, error=IndexError("Target 7 is out of bounds.")),
        "train_dataset": Numbered(),
    },
    "no memory on one rank": lambda: {
        "model": Fails(2, error=torch.OutOfMemoryError("CUDA out of memory")),
        "train_dataset": Numbered(),
    },
    "a loss that is not finite on one rank": lambda: {"model": Fails(2), "train_dataset": Numbered()},
    "inputs that are not finite on one rank": lambda: {
        "model": Fails(-1),
        "train_dataset": Numbered(number=2, x=torch.full((3,), torch.nan)),
    },
    "no learning rate": lambda: {"learning_rate": 0.0},
}


def trainer_of(folder: Path, kind: type[Trainer] = Trainer, **given: Any) -> Trainer:
    takes = ("model", "train_dataset", "eval_dataset", "compute_metrics", "data_collator", "compute_loss_func")
    parts = {name: given.pop(name) for name in takes if name in given}
    parts = {"model": Line(), "train_dataset": Points(12), **parts}
    settings = {
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
    }
    return kind(args=arguments(folder, "mistaken", **{**settings, **given}), **parts)


def raised(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        call()
    except Exception as error:
        return {"kind": type(error).__name__, "text": str(error), "notes": list(getattr(error, "__notes__", []))}
    return {"kind": "", "text": "", "notes": []}


def mistake(folder: Path, make: Callable[[], dict[str, Any]]) -> None:
    trainer_of(folder, **make()).train()


def found(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a preflight finds, and whether it leaves everything as it was."""
    trainer = trainer_of(folder, **given)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    drawn = torch.get_rng_state()
    report = trainer.preflight()
    after = trainer.model.state_dict()
    return {
        "verdicts": [stage.verdict for stage in report.stages],
        "problems": report.problems,
        "same": all(torch.equal(value, after[name]) for name, value in before.items()),
        "drawn": torch.equal(drawn, torch.get_rng_state()),
        "left": sorted(path.name for path in (folder / "mistaken").iterdir()),
    }


def pair(outputs: Any, labels: Tensor, **_: Any) -> Any:
    """A loss with its weight; a second one beside it."""
    errors = (outputs["logits"] - labels).square()
    return {"loss": (errors.sum(), errors.numel()), "size": (outputs["logits"].abs().sum(), len(labels))}


def trained(folder: Path, *, preflight: bool, **given: Any) -> dict[str, Any]:
    """Train with everything that a step changes; with a preflight before it, or without."""
    trainer = trainer_of(
        folder,
        model=Tagger(dropout=0.5, statistics=True),
        train_dataset=Sentences(),
        eval_dataset=Sentences(5),
        eval_strategy="epoch",
        save_strategy="epoch",
        optim="adamw_torch",
        preflight=preflight,
        ddp_find_unused_parameters=False,
        **given,
    )
    trainer.train()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def with_pairs(folder: Path, *, preflight: bool) -> dict[str, Any]:
    trainer = trainer_of(
        folder, compute_loss_func=pair, model=Fails(-1), preflight=preflight, gradient_accumulation_steps=2
    )
    trainer.train()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def work(folder: Path) -> dict[str, Any]:
    """Make every mistake, one after the other, in one group of processes."""
    logging.getLogger("surestep").setLevel(logging.ERROR)
    mistakes = {}
    for number, (name, make) in enumerate(MISTAKES.items()):
        mistakes[name] = raised(partial(mistake, folder / f"m{number}", make))
    planted = {name: found(folder / f"p{number}", make()) for number, (name, make) in enumerate(PLANTED.items())}
    return {
        "mistakes": mistakes,
        "planted": planted,
        "without": [trained(folder / "a", preflight=False), with_pairs(folder / "b", preflight=False)],
        "with": [trained(folder / "c", preflight=True), with_pairs(folder / "d", preflight=True)],
    }

"""What runs on every rank: trainings and evaluations whose results must not depend on the number of ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from surestep import Trainer, TrainerCallback, TrainingArguments

IGNORED = -100
SIZE = 23


class Sentences(Dataset):
    """Sentences of one width whose labels are ignored in places, some of them everywhere."""

    def __init__(self, size: int = SIZE) -> None:
        generator = torch.Generator().manual_seed(3)
        self.tokens = torch.randint(0, 12, (size, 6), generator=generator)
        ignored = torch.rand(size, 6, generator=generator) < torch.rand(size, 1, generator=generator)
        self.labels = self.tokens.roll(1, 1).masked_fill(ignored, IGNORED)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"tokens": self.tokens[index], "labels": self.labels[index], "number": index}


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(Sentences())


class Tagger(nn.Module):
    """Names each token; its loss is a sum over labels divided by the count that it is given."""

    main_input_name = "tokens"

    def __init__(self, *, dropout: float = 0.0, statistics: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(12, 8), nn.Linear(8, 12)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(8) if statistics else None
        self.seen: list[int] = []
        self.double()

    def forward(self, tokens: Tensor, labels: Tensor | None = None, number: Tensor | None = None, **kwargs: Any) -> Any:
        if self.training and number is not None:
            self.seen += number.tolist()
        hidden = self.dropout(torch.tanh(self.embed(tokens)))
        if self.norm is not None:
            hidden = self.norm(hidden.flatten(0, 1)).view_as(hidden)
        logits = self.head(hidden)
        count = kwargs.get("num_items_in_batch")
        how = "mean" if count is None else "sum"
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction=how)
        return {"loss": loss if count is None else loss / count, "logits": logits}


class Means(nn.Module):
    """A loss that is a mean over samples, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(12, 8), nn.Linear(8, 1)
        self.double()

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Any:
        predicted = self.head(self.embed(tokens).mean(1)).squeeze(-1)
        return {"loss": (predicted - labels.double().mean(1)).square().mean(), "logits": predicted}


class Exchanges(TrainerCallback):
    """Counts the buckets of gradients that the ranks exchange."""

    def __init__(self) -> None:
        self.count = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wrapped = self.trainer.model_wrapped
        if state.global_step == 0 and isinstance(wrapped, nn.parallel.DistributedDataParallel):
            wrapped.register_comm_hook(self, exchange)


def exchange(counter: Any, bucket: Any) -> Any:
    counter.count += 1
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    flat = bucket.buffer() / torch.distributed.get_world_size()
    torch.distributed.all_reduce(flat)
    future.set_result(flat)
    return future


# Torch wants the types themselves and not their names.
exchange.__annotations__ = {"bucket": torch.distributed.GradBucket, "return": torch.futures.Future[Tensor]}


def arguments(folder: Path, name: str, **settings: Any) -> TrainingArguments:
    quiet = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no", "logging_steps": 1}
    return TrainingArguments(str(folder / name), **{**quiet, "learning_rate": 0.01, "optim": "sgd", **settings})


def size_of_world() -> int:
    return int(os.environ["WORLD_SIZE"])


def outcome(trainer: Trainer) -> dict[str, Any]:
    """What training came to: weights, and the log without its times."""
    kept = (
        "loss",
        "grad_norm",
        "eval_loss",
        "eval_right",
        "eval_number",
        "train_loss",
        "num_input_tokens_seen",
        "step",
    )
    log = [{name: entry[name] for name in kept if name in entry} for entry in trainer.state.log_history]
    return {"weights": {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}, "log": log}


def right(prediction: Any) -> dict[str, float]:
    """Count the labels that were met."""
    counted = prediction.label_ids != IGNORED
    met = (prediction.predictions.argmax(-1) == prediction.label_ids) & counted
    return {"right": float(met.sum() / counted.sum()), "number": float(len(prediction.label_ids))}


def trained(folder: Path, name: str, model: nn.Module, dataset: Any = None, **settings: Any) -> dict[str, Any]:
    """Train with 6 samples in the micro-batches of all ranks together, on however many ranks."""
    micro = settings.pop("micro_batches", 1)
    callbacks = [counter := Exchanges()]
    args = arguments(
        folder,
        name,
        per_device_train_batch_size=6 // size_of_world(),
        gradient_accumulation_steps=micro,
        **{"num_train_epochs": 2, **settings},
    )
    parts = {"eval_dataset": Sentences(7), "compute_metrics": right} if args.eval_strategy != "no" else {}
    trainer = Trainer(model, args, train_dataset=dataset or Sentences(), callbacks=callbacks, **parts)
    counter.trainer = trainer
    trainer.train()
    return {**outcome(trainer), "exchanges": counter.count, "seen": getattr(trainer.model, "seen", [])}


def evaluated(folder: Path, size: int, **settings: Any) -> dict[str, Any]:
    args = arguments(folder, "evaluated", per_device_eval_batch_size=2, **settings)
    trainer = Trainer(Tagger(), args, eval_dataset=Sentences(size), compute_metrics=None if settings else right)
    if settings:
        met: list[float] = []

        def by_batch(prediction: Any, compute_result: bool) -> dict[str, float]:
            figures = right(prediction)
            met.append(figures["number"])
            return {"number": sum(met), "last": float(compute_result)}

        trainer.compute_metrics = by_batch
    metrics = trainer.evaluate()
    figures = {name: value for name, value in metrics.items() if "second" not in name and "time" not in name}
    predictions = trainer.predict(Sentences(size)).predictions
    return {"metrics": figures, "predictions": torch.as_tensor(np.asarray(predictions))}


def resumed(folder: Path) -> dict[str, Any]:
    """Train with dropout and save; go on from the middle; return both ends."""
    settings = {"save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2, "num_train_epochs": 2}
    ends = []
    for checkpoint in (None, folder / "resumed" / "checkpoint-3", True):
        args = arguments(folder, "resumed", optim="adamw_torch", logging_steps=2, **settings)
        trainer = Trainer(Tagger(dropout=0.5), args, train_dataset=Sentences())
        trainer.train(resume_from_checkpoint=None if checkpoint is None else checkpoint)
        ends.append(outcome(trainer))
    return {"whole": ends[0], "resumed": ends[1], "again": ends[2]}


def work(folder: Path) -> dict[str, Any]:
    """Do everything that the tests look at, in one group of processes."""
    arguments(folder, "first")
    return {
        "joined": torch.distributed.is_initialized(),
        "counted": trained(folder, "counted", Tagger(), eval_strategy="epoch", per_device_eval_batch_size=2),
        "accumulated": trained(folder, "accumulated", Tagger(), micro_batches=2),
        "tokens": trained(folder, "tokens", Tagger(), include_num_input_tokens_seen="all"),
        "means": trained(folder, "means", Means(), Sentences(24)),
        "stream": trained(folder, "stream", Tagger(), Stream(), max_steps=7),
        "statistics": trained(
            folder, "statistics", Tagger(statistics=True), eval_strategy="epoch", ddp_find_unused_parameters=False
        ),
        "evaluated": {str(size): evaluated(folder, size) for size in (1, 5, 8, 13)},
        "by_batch": evaluated(folder, 13, batch_eval_metrics=True),
        "resumed": resumed(folder),
    }

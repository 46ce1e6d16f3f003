"""What is read, in which order, by whom: streams, workers, sampling, columns."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import DataLoader, Sampler, SubsetRandomSampler, WeightedRandomSampler

from tests.parity.harness import Case, as_parameters, check
from tests.parity.models import Points, PointStream, Sentences, SizedPointStream, Tagger, pad

BASE = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "logging_steps": 1, "learning_rate": 1e-2}
STREAM = {"per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-2}


def table(size: int = 30) -> datasets.Dataset:
    points = Points(size)
    columns = {"x": points.x.tolist(), "labels": points.y.tolist(), "number": list(range(size)), "name": ["a"] * size}
    return datasets.Dataset.from_dict(columns).with_format("torch")


def table_stream() -> datasets.IterableDataset:
    return table(24).to_iterable_dataset().with_format("torch")


class OwnSampler(Sampler[int]):
    """A user's own order: backwards."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Any:
        return iter(range(self.size - 1, -1, -1))

    def __len__(self) -> int:
        return self.size


class OwnOrder:
    """A subclass with a sampler of its own."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return OwnSampler(len(self.train_dataset))


class Weighted:
    """A subclass that draws by weight, from a generator of its own."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        weights = torch.arange(1.0, len(self.train_dataset) + 1)
        return WeightedRandomSampler(weights, 32, generator=torch.Generator().manual_seed(5))


class Subset:
    """A subclass that trains on some of the samples, drawn from the global generator."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SubsetRandomSampler(range(5, 40))


class OwnLoader:
    """A subclass with a loader of its own."""

    def get_train_dataloader(self) -> Any:
        return DataLoader(self.train_dataset, batch_size=7, collate_fn=self.data_collator)


class OwnBatches:
    """A subclass that fetches the micro-batches of a step itself."""

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        return [{**batch, "x": batch["x"] * 2} for batch in batches], items


STREAMS = [
    Case(
        "a stream read in part",
        {**STREAM, "max_steps": 4},
        {"train": PointStream},
        lambda seen: seen.state.epoch == 1 and len(seen.numbers) == 16,
    ),
    Case(
        "a stream that starts again twice",
        {**STREAM, "max_steps": 15},
        {"train": PointStream},
        lambda seen: seen.numbers[24:28] == [0, 1, 2, 3] and len(seen.numbers) == 60,
    ),
    Case(
        "a stream with accumulation, ending with a step",
        {**STREAM, "max_steps": 5, "gradient_accumulation_steps": 3},
        {"train": PointStream},
        lambda seen: len(seen.numbers) == 60,
    ),
    Case("a stream with a short last batch", {**STREAM, "max_steps": 12}, {"train": lambda: PointStream(22)}),
    Case("a stream with a length, by epochs", BASE, {"train": SizedPointStream}, lambda seen: seen.state.epoch == 2),
    Case("a stream that says its length, by steps", {**STREAM, "max_steps": 8}, {"train": SizedPointStream}),
    Case("a table as a stream", {**STREAM, "max_steps": 8}, {"train": table_stream}),
]

ORDERS = [
    Case(
        "in sequence",
        {**BASE, "train_sampling_strategy": "sequential"},
        shows=lambda seen: seen.numbers == [*range(50), *range(50)],
    ),
    Case(
        "by length, the first epoch",
        {**BASE, "num_train_epochs": 1, "train_sampling_strategy": "group_by_length", "seed": 4},
        {"model": lambda: Tagger(dropout=0.0), "train": Sentences, "data_collator": pad},
    ),
    Case(
        "by length with accumulation",
        {
            **BASE,
            "num_train_epochs": 1,
            "train_sampling_strategy": "group_by_length",
            "gradient_accumulation_steps": 2,
        },
        {"model": lambda: Tagger(dropout=0.0), "train": lambda: Sentences(90), "data_collator": pad},
    ),
    Case(
        "batches of about equal cost",
        {**BASE, "train_sampling_strategy": "batch_rebalance", "gradient_accumulation_steps": 2},
        {"model": Tagger, "train": Sentences, "data_collator": pad},
        lambda seen: seen.state.global_step == 8,
    ),
    Case("a sampler of the user's", BASE, {"mixin": OwnOrder}, lambda seen: seen.numbers[:3] == [49, 48, 47]),
    Case("a weighted sampler", BASE, {"mixin": Weighted}, lambda seen: len(seen.numbers) == 64),
    Case("a subset sampler", BASE, {"mixin": Subset}, lambda seen: set(seen.numbers) == set(range(5, 40))),
    Case("a loader of the user's", BASE, {"mixin": OwnLoader}, lambda seen: seen.numbers[:3] == [0, 1, 2]),
    Case("batches changed on the way", {**BASE, "gradient_accumulation_steps": 2}, {"mixin": OwnBatches}),
]

SOURCES = [
    Case("two workers", {**BASE, "dataloader_num_workers": 2}),
    Case(
        "two workers that stay",
        {
            **BASE,
            "dataloader_num_workers": 2,
            "dataloader_persistent_workers": True,
            "dataloader_prefetch_factor": 3,
            "eval_strategy": "epoch",
        },
        {"evaluate": lambda: Points(10)},
    ),
    Case("a stream in two workers", {**STREAM, "max_steps": 6, "dataloader_num_workers": 2}, {"train": PointStream}),
    Case(
        "a table, with columns that the model does not know",
        {**BASE, "eval_strategy": "epoch"},
        {"train": table, "evaluate": table},
        lambda seen: len(seen.numbers) == 60,
    ),
    Case("a list of dicts", BASE, {"train": lambda: [Points()[index] for index in range(20)]}),
    Case(
        "samples with a name that the model does not know",
        {**BASE, "eval_strategy": "epoch"},
        {"train": lambda: [{**Points()[index], "other": "text"} for index in range(20)], "evaluate": Points},
    ),
    Case("one class for each sequence", {**BASE, "label_names": ["labels"]}, {"train": lambda: Points(31)}),
]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")
@as_parameters(STREAMS + ORDERS + SOURCES)
def test_data_equals_the_originals(case: Case) -> None:
    check(case)

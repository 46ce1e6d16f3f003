"""A run of 40 steps over data that draws at random, resumed after each of them, ends as if it had never stopped."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, WeightedRandomSampler, default_collate

from tests.parity.harness import Seen
from tests.parity.models import Net, Points, Sentences, Tagger, pad
from tests.resume.rig import Row, assert_goes_on, checkpoints, resumed, straight
from tests.resume.test_every_step import absolute_error

BASE = {"per_device_train_batch_size": 4, "max_steps": 40, "logging_steps": 3, "learning_rate": 1e-2}
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")

# A normal number each, of which a second one waits in the generator.
DRAWS: dict[str, Callable[[], float]] = {
    "random": lambda: random.gauss(0, 1),
    "numpy": lambda: float(np.random.randn()),
    "torch": lambda: float(torch.randn(())),
}


def noise(of: tuple[str, ...]) -> float:
    return 0.1 * sum(DRAWS[name]() for name in of)


class Augmented(Points):
    """Points with noise from some of the default generators."""

    def __init__(self, size: int, *of: str, seed: int = 7) -> None:
        super().__init__(size, seed=seed)
        self.of = of

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] + noise(self.of)}


class AugmentedSentences(Sentences):
    """Sentences of which a token is drawn anew."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        tokens = sample["input_ids"].clone()
        tokens[random.randrange(len(tokens))] = int(torch.randint(1, 24, ()))
        return {**sample, "input_ids": tokens}


class AugmentedStream(IterableDataset[Any]):
    """A stream in an order that is drawn, with noise."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        points = Augmented(30, *DRAWS)
        for index in torch.randperm(len(points)).tolist():
            yield points[index]


class OwnGenerator(Points):
    """Points with noise from a generator of their own."""

    def __init__(self) -> None:
        super().__init__(30)
        self.generator = np.random.default_rng(1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] + float(self.generator.normal())}


class Collator:
    """Adds noise to a whole batch."""

    def __init__(self, *of: str) -> None:
        self.of = of

    def __call__(self, samples: list[Any]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = default_collate(samples)
        return {**batch, "x": batch["x"] + noise(self.of)}


class RestlessNet(Net):
    """Draws from every generator of the process while it trains."""

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Tensor]:
        if self.training:
            x = x + noise(tuple(DRAWS))
        return super().forward(x, labels, number)


class Wandering(BatchSampler):
    """Draws its batches one by one from the default generators."""

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(len(self)):
            yield [random.randrange(30), int(np.random.randint(30)), int(torch.randint(30, ()))]


class WandersAbout:
    """A subclass with a loader whose order is drawn batch by batch."""

    def get_train_dataloader(self) -> Any:
        batches = Wandering(range(30), 3, drop_last=False)
        return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)  # type: ignore[attr-defined]


class ByWeight:
    """A subclass with a sampler that has a generator of its own, which goes on from epoch to epoch."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not hasattr(self, "generator"):
            self.generator = torch.Generator().manual_seed(5)
        return WeightedRandomSampler(torch.arange(1.0, 31), 24, generator=self.generator)


def of(*names: str, size: int = 30, **options: Any) -> dict[str, Any]:
    return {"model": lambda: RestlessNet(0.3), "train": lambda: Augmented(size, *names), **options}


def complete(seen: Seen) -> bool:
    return seen.state.global_step == 40 and seen.state.epoch > 1.5


# Resumed after every step.
EVERY = [
    Row(
        "each module, in samples and batches; a ragged tail; evaluation between",
        {**BASE, "gradient_accumulation_steps": 3, "eval_strategy": "steps", "eval_steps": 7},
        of(
            *DRAWS,
            data_collator=Collator(*DRAWS),
            evaluate=lambda: Augmented(9, *DRAWS, seed=1),
            compute_metrics=absolute_error,
        ),
        complete,
    ),
]
# Resumed after some steps: within an epoch, at its end, behind it.
SOME = [
    Row("python's", BASE, of("random"), complete),
    Row("numpy's", {**BASE, "gradient_accumulation_steps": 3, "logging_steps": 1}, of("numpy"), complete),
    Row(
        "by length",
        {**BASE, "train_sampling_strategy": "group_by_length"},
        {"model": lambda: Tagger(0.3), "train": AugmentedSentences, "data_collator": pad},
        complete,
    ),
    Row("torch's", BASE, of("torch"), complete),
    Row("in the collator, python's", BASE, of(data_collator=Collator("random")), complete),
    Row("in the collator, numpy's", BASE, of(data_collator=Collator("numpy")), complete),
    Row(
        "in the collator, torch's",
        {**BASE, "gradient_accumulation_steps": 3},
        of(data_collator=Collator("torch")),
        complete,
    ),
    Row("for each sample", {**BASE, "data_seeding": "sample"}, of(*DRAWS), complete),
    Row(
        "early stopping",
        {
            **BASE,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "metric_for_best_model": "loss",
            "greater_is_better": True,
        },
        of(
            *DRAWS,
            evaluate=lambda: Augmented(9, *DRAWS, seed=1),
            callbacks=lambda side: [side.EarlyStoppingCallback(30)],
        ),
        lambda seen: 30 < seen.state.global_step < 40,
    ),
    Row("a stream", BASE, {**of(), "train": AugmentedStream}, complete),
    Row("a generator of the data's own", BASE, {**of(), "train": OwnGenerator}, complete),
    Row("batches that are drawn one by one", BASE, of(*DRAWS, mixin=WandersAbout), complete),
    Row("a generator of the sampler's own", BASE, of(*DRAWS, mixin=ByWeight), complete),
    Row("an order that is no list", BASE, of(*DRAWS), complete),
]
WITH_WORKERS = {"dataloader_num_workers": 2}
IN_WORKERS = [
    Row("workers", {**BASE, **WITH_WORKERS}, of(*DRAWS, data_collator=Collator(*DRAWS)), complete),
    Row(
        "workers that are kept",
        {**BASE, **WITH_WORKERS, "dataloader_persistent_workers": True, "gradient_accumulation_steps": 3},
        of(*DRAWS, data_collator=Collator(*DRAWS)),
        complete,
    ),
    Row("a stream in workers", {**BASE, **WITH_WORKERS}, {**of(), "train": AugmentedStream}, complete),
    Row(
        "a generator of the sampler's own, with workers", {**BASE, **WITH_WORKERS}, of(*DRAWS, mixin=ByWeight), complete
    ),
]


def goes_on(row: Row, folder: Path, steps: slice, **changes: Any) -> None:
    whole = straight(folder / "whole", row)
    assert row.shows(whole), "the row does not show what it is there for"
    saved = checkpoints(folder / "whole")
    assert len(saved) == whole.state.global_step
    for checkpoint in saved[:-1][steps]:
        part = resumed(folder / "resumed", row, checkpoint, **changes)
        assert_goes_on(whole, part, checkpoint.name)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", EVERY, ids=[row.name for row in EVERY])
def test_resuming_after_any_step_repeats_every_draw(row: Row, tmp_path: Path) -> None:
    goes_on(row, tmp_path, slice(None))


@pytest.mark.parametrize("row", SOME, ids=[row.name for row in SOME])
def test_resuming_repeats_every_draw(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if row.name == "an order that is no list":
        monkeypatch.setattr("surestep.data.samplers.LISTED_UP_TO", 20)
    goes_on(row, tmp_path, slice(4, None, 11))


@pytest.mark.parametrize("row", IN_WORKERS, ids=[row.name for row in IN_WORKERS])
def test_resuming_repeats_every_draw_of_workers(row: Row, tmp_path: Path) -> None:
    goes_on(row, tmp_path, slice(6, None, 20))


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 2)])
def test_the_number_of_workers_may_change_on_resume(before: int, after: int, tmp_path: Path) -> None:
    arguments = {**BASE, "dataloader_num_workers": before}
    row = Row("workers", arguments, of(*DRAWS, data_collator=Collator(*DRAWS)), complete)
    goes_on(row, tmp_path, slice(11, None, 20), dataloader_num_workers=after)


def test_a_run_that_evaluates_at_its_start_is_the_same(tmp_path: Path) -> None:
    """What an evaluation before the first step draws is none of the training's business."""
    row = Row("at the start", BASE, of(*DRAWS, evaluate=lambda: Augmented(9, *DRAWS, seed=1)), complete)
    whole = straight(tmp_path / "whole", row)
    part = resumed(tmp_path / "resumed", row, checkpoints(tmp_path / "whole")[16], eval_on_start=True)
    part.logs[:] = [entry for entry in part.logs if "eval_loss" not in entry]
    assert_goes_on(whole, part, "evaluated at the start")

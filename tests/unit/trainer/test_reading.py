"""What a run says of how its data is read, and what a resumed one reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tests.small import Points, quick
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from surestep import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        points = Points(20)
        return (points[index] for index in range(20))


class ByWeight(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        size = len(self.train_dataset)
        return WeightedRandomSampler([1.0] * size, size)


class OwnLoader(DataLoader[Any]):
    def __iter__(self) -> Any:
        return (batch for batch in super().__iter__())


class ReadsByItself(Trainer):
    def get_train_dataloader(self) -> Any:
        return OwnLoader(Points(20), 4)


class Foreign(Trainer):
    def get_train_dataloader(self) -> Any:
        points = Points(20)
        return [{name: value[None] for name, value in points[index].items()} for index in range(20)]


def told(folder: Path, caplog: pytest.LogCaptureFixture, level: int, resume: bool = False, **settings: Any) -> str:
    """Train for two steps, or go on from there, and return what was said at a level of how data is read."""
    steps = {"max_steps": 3} if resume else {"max_steps": 2}
    arguments = {"save_strategy": "steps", "save_steps": 2, **steps, **settings}
    trainer = quick(folder, arguments.pop("kind", Trainer), **arguments)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="surestep"):
        trainer.train(resume_from_checkpoint=resume)
    found = [record for record in caplog.records if record.name == "surestep.trainer.reading"]
    assert all(record.levelno <= level for record in found)
    return " ".join(record.getMessage() for record in found if record.levelno == level)


def test_a_loader_that_seeks_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "from any position at once" in told(tmp_path, caplog, logging.INFO)


def test_an_order_that_is_walked_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = told(tmp_path, caplog, logging.INFO, kind=ByWeight)
    assert "comes from WeightedRandomSampler" in said
    assert "seek(samples)" in said
    assert "up to the position: here 2 batches" in told(tmp_path, caplog, logging.INFO, resume=True, kind=ByWeight)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"train_dataset": Stream()}, "a stream (Stream)"),
        ({"kind": ReadsByItself}, "a loader of its own kind (OwnLoader)"),
        ({"kind": Foreign}, "a loader of its own kind (list)"),
    ],
)
def test_data_that_is_read_again(
    settings: dict[str, Any], name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = told(tmp_path, caplog, logging.WARNING, **settings)
    assert name in said
    assert "__len__ and __getitem__" in said
    said = told(tmp_path, caplog, logging.WARNING, resume=True, **settings)
    assert "throws the batches away: here 2 batches" in said
    assert name in told(tmp_path / "other", caplog, logging.INFO, save_strategy="no", **settings)


class OwnGenerator(Points):
    def __init__(self, generator: Any) -> None:
        super().__init__(20)
        self.transform = {"generator": generator}
        self.reads = 0

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] + float(self.transform["generator"].normal())}


class Seeded(OwnGenerator):
    def set_batch_seed(self, seed: int) -> None:
        self.transform = {"generator": np.random.default_rng(seed)}


class Idle(OwnGenerator):
    def __getitem__(self, index: int) -> Any:
        return Points.__getitem__(self, index)


WITH_WORKERS = {"dataloader_num_workers": 2}


def test_draws_that_escape_the_seeding_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = OwnGenerator(np.random.default_rng(1))
    before = data.transform["generator"].bit_generator.state
    said = told(tmp_path, caplog, logging.WARNING, train_dataset=data, **WITH_WORKERS)
    assert "dataset.transform['generator'] (numpy.random._generator.Generator)" in said
    assert "set_batch_seed(seed)" in said
    assert data.transform["generator"].bit_generator.state == before
    assert data.reads == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"train_dataset": Seeded(np.random.default_rng(1)), **WITH_WORKERS},
        {"train_dataset": Idle(np.random.default_rng(1)), **WITH_WORKERS},
        {"train_dataset": OwnGenerator(np.random.mtrand._rand), **WITH_WORKERS},
        {"train_dataset": OwnGenerator(np.random.default_rng(1))},
        {"train_dataset": OwnGenerator(np.random.default_rng(1)), "save_strategy": "no", **WITH_WORKERS},
    ],
)
def test_draws_that_do_not_are_not(settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "generator" not in told(tmp_path, caplog, logging.INFO, **settings)


@pytest.mark.parametrize("settings", [{}, {"train_dataset": OwnGenerator(np.random.default_rng(1)), **WITH_WORKERS}])
def test_draws_that_are_left_to_chance_are_told(
    settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = told(tmp_path, caplog, logging.WARNING, data_seeding="global", **settings)
    assert said.startswith("data_seeding='global' leaves what the training data draws at random")
    assert "is not the same to the last bit" in told(
        tmp_path, caplog, logging.WARNING, resume=True, data_seeding="global", **settings
    )
    assert told(tmp_path / "other", caplog, logging.WARNING, data_seeding="global", save_strategy="no") == ""


class Counted(Points):
    def __init__(self) -> None:
        super().__init__(200)
        self.read: list[int] = []

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("kind", [Trainer, ByWeight])
def test_a_resumed_run_reads_no_more_than_its_first_step(kind: type, accumulation: int, tmp_path: Path) -> None:
    """At any position: no sample is read to get there."""
    common = {
        "gradient_accumulation_steps": accumulation,
        "save_strategy": "steps",
        "save_steps": 1,
        "max_steps": 8,
        "kind": kind,
    }
    quick(tmp_path, train_dataset=Points(200), **common).train()  # type: ignore[arg-type]
    for step in range(1, 8):
        data = Counted()
        trainer = quick(tmp_path / "again", train_dataset=data, **common)  # type: ignore[arg-type]
        with trainer.steps(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}")) as steps:
            next(iter(steps))
            assert len(data.read) <= 4 * accumulation, f"step {step}"


class CountedStream(IterableDataset[Any]):
    """Two hundred points, of which it counts those that it gives."""

    def __init__(self) -> None:
        self.points, self.read = Points(200), list[int]()
        self.at = self.begin = 0

    def __iter__(self) -> Iterator[Any]:
        self.at, self.begin = self.begin, 0
        while self.at < len(self.points):
            self.read.append(self.at)
            self.at += 1
            yield self.points[self.at - 1]

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.begin = state["at"]


def counted_table() -> tuple[Any, list[int]]:
    """Return a stream of `datasets`, and the numbers of the rows that are read."""
    read: list[int] = []

    def note(row: dict[str, Any], number: int) -> dict[str, Any]:
        read.append(number)
        return row

    points = Points(200)
    columns = {name: [points[number][name].tolist() for number in range(200)] for name in points[0]}
    table = datasets.Dataset.from_dict(columns).to_iterable_dataset()
    return table.map(note, with_indices=True).with_format("torch"), read


def counted_stream() -> tuple[Any, list[int]]:
    stream = CountedStream()
    return stream, stream.read


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("make", [counted_stream, counted_table])
def test_a_resumed_stream_that_tells_its_position_reads_no_more_than_its_first_step(
    make: Any, accumulation: int, tmp_path: Path
) -> None:
    common = {"gradient_accumulation_steps": accumulation, "save_strategy": "steps", "save_steps": 1, "max_steps": 8}
    quick(tmp_path, train_dataset=make()[0], **common).train()
    for step in range(1, 8):
        stream, read = make()
        trainer = quick(tmp_path / "again", train_dataset=stream, **common)
        with trainer.steps(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}")) as steps:
            next(iter(steps))
            assert 4 <= len(read) <= 4 * accumulation, f"step {step}"


class InWorkers(Counted):
    """Counts over processes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __getitem__(self, index: int) -> Any:
        self.count += 1
        return Points.__getitem__(self, index)


def test_workers_of_a_resumed_run_read_no_more_than_they_prefetch(tmp_path: Path) -> None:
    common = {"save_strategy": "steps", "save_steps": 5, "max_steps": 40, **WITH_WORKERS}
    quick(tmp_path, train_dataset=Points(200), **common).train()
    for step in (5, 20, 35):
        data = InWorkers()
        trainer = quick(tmp_path / "again", train_dataset=data, **common)
        with trainer.steps(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}")) as steps:
            next(iter(steps))
            # Two batches ahead in each of two workers, and the one that was taken.
            assert int(data.count) <= 4 * (2 * 2 + 1)


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_of_an_evaluation_are_kept_if_asked_for(persistent: bool, tmp_path: Path) -> None:
    class Pids(Points):
        def __getitem__(self, index: int) -> Any:
            return {**super().__getitem__(index), "labels": torch.tensor([float(os.getpid())])}

    trainer = quick(tmp_path, eval_dataset=Pids(8), dataloader_num_workers=1, dataloader_persistent_workers=persistent)
    found = [set(trainer.predict(Pids(4)).label_ids.ravel().tolist()) for _ in range(2)]
    assert found[0] != found[1]
    losses = [trainer.evaluate()["eval_loss"] for _ in range(2)]
    # The loss tells the number of the process.
    assert (losses[0] == losses[1]) is persistent


def test_an_evaluation_leaves_the_generators_of_its_data_as_they_were(tmp_path: Path) -> None:
    data = OwnGenerator(np.random.default_rng(1))
    trainer = quick(tmp_path, eval_dataset=data)
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]

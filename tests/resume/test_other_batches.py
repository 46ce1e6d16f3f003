"""Going on with other batches: another size, another accumulation. Each sample of an epoch comes once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import surestep
from surestep.checkpoint.layout import progress_name
from surestep.checkpoint.tree import read_tree
from surestep.data.grouping import LengthGroupedSampler
from surestep.data.samplers import SequentialSampler, WeightedSeededSampler
from surestep.errors import CheckpointError
from tests.parity.compare import assert_close
from tests.parity.harness import Seen, run
from tests.parity.models import Net, Points, PointStream, SizedPointStream
from tests.resume.rig import Row, assert_goes_on, checkpoints, resumed, straight

Log = pytest.LogCaptureFixture
SIZE = 30
BASE = {"num_train_epochs": 2, "logging_steps": 3, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 1}
POINTS: dict[str, Any] = {"model": lambda: Net(0.3), "train": lambda: Points(SIZE)}


def sizes(batch: int, accumulation: int = 1) -> dict[str, int]:
    return {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}


def begin(folder: Path, arguments: dict[str, Any], options: dict[str, Any] | None = None) -> Seen:
    return run(surestep, {**BASE, **arguments}, folder=str(folder), **{**POINTS, **(options or {})})


def go_on(
    folder: Path,
    step: int,
    arguments: dict[str, Any],
    options: dict[str, Any] | None = None,
    *,
    into: Path | None = None,
) -> Seen:
    """Resume from the checkpoint of a step."""
    named = str(folder / f"checkpoint-{step}")
    driven = {**(options or {}), "drive": lambda trainer: trainer.train(resume_from_checkpoint=named)}
    return begin(into or folder, arguments, driven)


def samples_before(checkpoint: Path, size: int = SIZE) -> int:
    """Return the samples that a run had seen, over all epochs, when it saved."""
    position = read_tree(checkpoint, progress_name(0))["position"]
    return position["epoch"] * size + min(position["samples"], size)


def chain(folder: Path, legs: list[tuple[dict[str, Any], int | None]], options: dict[str, Any]) -> list[list[int]]:
    """Train in legs, each with arguments of its own up to a step; return the samples that each saw."""
    seen, step = [], None
    for arguments, stop in legs:
        part = begin(folder, arguments, options) if step is None else go_on(folder, step, arguments, options)
        before = 0 if step is None else samples_before(folder / f"checkpoint-{step}")
        step = stop
        after = len(part.numbers) if stop is None else samples_before(folder / f"checkpoint-{stop}") - before
        seen.append(part.numbers[:after])
    return seen


class FreshOrder:
    """A subclass whose sampler draws a permutation from the global generator: its indices must be replayed."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return _Drawn(range(SIZE))


class _Drawn(RandomSampler):
    """Not torch's own kind, so that nothing takes its place."""


class InOrder:
    """A subclass with a loader of its own making."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, self._train_batch_size, collate_fn=self.data_collator)


class ByWeight:
    """A subclass that draws samples with replacement."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return WeightedSeededSampler([1.0 + number % 3 for number in range(SIZE)], SIZE, seed=3)


class ByLength:
    """A subclass that puts samples of about one length together."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        lengths = [(number * 7) % 11 + 1 for number in range(SIZE)]
        return LengthGroupedSampler(self._train_batch_size * self.args.gradient_accumulation_steps, lengths=lengths)


ORDERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "shuffled": ({}, {}),
    "in order": ({"train_sampling_strategy": "sequential"}, {}),
    "an order drawn from the global generator": ({}, {"mixin": FreshOrder}),
    "a loader of the user's": ({}, {"mixin": InOrder}),
    "two workers": ({"dataloader_num_workers": 2}, {}),
    "drawn by weight": ({}, {"mixin": ByWeight}),
}
# The step after which each leg ends, and its batches.
LEGS: dict[str, list[tuple[int, int, int | None]]] = {
    "4, 8, 4": [(4, 1, 3), (8, 1, 5), (4, 1, None)],
    "accumulation 1, 3": [(4, 1, 2), (4, 3, 4), (4, 1, None)],
    "both, over the end of an epoch": [(3, 2, 4), (7, 1, 6), (2, 3, 9), (5, 1, None)],
    "between two epochs": [(4, 1, 8), (8, 2, 9), (4, 2, None)],
}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")
@pytest.mark.parametrize("legs", LEGS)
@pytest.mark.parametrize("order", ORDERS)
def test_the_samples_are_those_of_a_run_without_a_change(order: str, legs: str, tmp_path: Path) -> None:
    arguments, options = ORDERS[order]
    whole = begin(tmp_path / "whole", {**arguments, **sizes(4), "save_strategy": "no"}, options)
    parts = chain(
        tmp_path / "parts",
        [({**arguments, **sizes(batch, steps)}, stop) for batch, steps, stop in LEGS[legs]],
        options,
    )

    assert len(whole.numbers) == 2 * SIZE
    assert all(parts), "a leg without a sample shows nothing"
    assert [number for part in parts for number in part] == whole.numbers


@pytest.mark.parametrize("stop", range(1, 16))
def test_after_any_step(stop: int, tmp_path: Path) -> None:
    before, after = chain(tmp_path, [(sizes(4), stop), (sizes(5, 2), None)], {})
    epochs = (before + after)[:SIZE], (before + after)[SIZE:]

    assert [sorted(epoch) for epoch in epochs] == [list(range(SIZE))] * 2


def test_with_short_batches_dropped_no_sample_comes_twice(tmp_path: Path) -> None:
    dropped = {"dataloader_drop_last": True, "num_train_epochs": 1}
    whole = begin(tmp_path / "whole", {**sizes(4), **dropped})
    before, after = chain(tmp_path / "parts", [({**sizes(4), **dropped}, 3), ({**sizes(8), **dropped}, None)], {})

    assert len(whole.numbers) == 28
    # Behind 12 of 30 there are two batches of 8.
    assert before + after == whole.numbers[:28]
    first, last = chain(tmp_path / "ended", [({**sizes(8), **dropped}, 3), ({**sizes(2), **dropped}, None)], {})
    # The epoch had ended: what was dropped of it is not taken up.
    assert (len(first), len(last)) == (24, 0)


def test_an_order_by_length_keeps_its_window_to_the_end_of_the_epoch(tmp_path: Path) -> None:
    options = {"mixin": ByLength}
    first = begin(tmp_path / "one", sizes(2), options).numbers
    second = begin(tmp_path / "other", sizes(4, 2), options).numbers
    assert first[:SIZE] != second[:SIZE], "the window shows"

    begin(tmp_path / "parts", sizes(2), options)
    part = go_on(tmp_path / "parts", 3, sizes(4, 2), options)
    assert part.numbers == first[6:SIZE] + second[SIZE:]
    # A second resume within the same epoch keeps it as well.
    again = go_on(tmp_path / "parts", 4, sizes(2), options, into=tmp_path / "again")
    assert again.numbers == first[14:]


@pytest.mark.parametrize("stop", [1, 4, 6, 7, 13])
@pytest.mark.parametrize("stream", [PointStream, SizedPointStream])
def test_a_stream_goes_on_from_its_sample(stream: Callable[[], Any], stop: int, tmp_path: Path) -> None:
    options = {"train": lambda: stream(24)}
    arguments = {"max_steps": 20}
    begin(tmp_path, {**sizes(4), **arguments}, options)
    part = go_on(tmp_path, stop, {**sizes(5, 2), **arguments}, options)
    # A group never crosses the end of a pass: 24 samples are steps of 10, 10 and 4.
    seen = samples_before(tmp_path / f"checkpoint-{stop}", 24) % 24
    passes = [range(seen, 24), *[range(24)] * 20]
    steps = [list(one)[start : start + 10] for one in passes for start in range(0, len(one), 10)]

    assert part.state.global_step == part.state.max_steps == 20
    assert part.numbers == [number for step in steps[: 20 - stop] for number in step]


# What is counted


def rates_of(seen: Seen) -> list[float]:
    return [entry["learning_rate"] for entry in seen.logs if "loss" in entry]


@pytest.mark.parametrize(
    ("schedule", "warmup"), [("linear", 0), ("cosine", 0.2), ("polynomial", 0), ("linear", 0.1), ("inverse_sqrt", 0.1)]
)
def test_a_run_by_epochs_ends_with_its_schedule(schedule: str, warmup: float, tmp_path: Path) -> None:
    arguments = {"lr_scheduler_type": schedule, "warmup_steps": warmup, "logging_steps": 1}
    whole = begin(tmp_path / "whole", {**sizes(8), **arguments, "save_strategy": "no"})
    begin(tmp_path, {**sizes(4), **arguments})
    part = go_on(tmp_path, 6, {**sizes(8), **arguments})

    # 8 steps of 4 an epoch; 24 of 30 samples are done: one step of 8, and 4 more in the second epoch.
    assert part.state.global_step == part.state.max_steps == 6 + 1 + 4
    assert part.state.epoch == 2.0
    # From there on the rates are those of a run with batches of 8 throughout, which stands at step 3 of 8.
    assert rates_of(part)[6:] == rates_of(whole)[3:]
    assert part.rates == whole.rates


@pytest.mark.parametrize("cut", [(8, 1), (4, 3), (2, 1), (7, 2)])
def test_the_rate_is_continuous_up_to_a_step(cut: tuple[int, int], tmp_path: Path) -> None:
    arguments = {"logging_steps": 1, "lr_scheduler_type": "linear", "num_train_epochs": 4}
    begin(tmp_path, {**sizes(4), **arguments})
    part = go_on(tmp_path, 13, {**sizes(*cut), **arguments})
    rates, course = rates_of(part), part.state.max_steps
    a_step = 1e-2 / 32 + 1e-2 / (4 * math.ceil(math.ceil(SIZE / cut[0]) / cut[1]))

    assert course == part.state.global_step == len(rates)
    assert all(before >= after >= before - 1.01 * a_step for before, after in pairwise(rates))
    assert set(part.rates) == {0.0}


def test_the_epoch_and_the_intervals_keep_their_meaning(tmp_path: Path) -> None:
    evaluated = {"evaluate": lambda: Points(9, seed=1)}
    arguments = {"eval_strategy": "steps", "eval_steps": 0.25, "logging_steps": 1}
    begin(tmp_path, {**sizes(2), **arguments}, evaluated)
    part = go_on(tmp_path, 7, {**sizes(10), **arguments}, evaluated)
    epochs = [entry["epoch"] for entry in part.logs if "loss" in entry]

    assert part.state.max_steps == 7 + 2 + 3
    assert part.state.eval_steps == 3
    assert [entry["step"] for entry in part.logs if "eval_loss" in entry and entry["step"] > 7] == [9, 12]
    assert epochs == pytest.approx([*(step / 15 for step in range(1, 8)), (7 / 15 + 1) / 2, 1, 4 / 3, 5 / 3, 2])
    assert part.state.train_batch_size == 10
    assert part.state.num_train_epochs == 2


def test_max_steps_counts_steps_of_any_size(tmp_path: Path) -> None:
    arguments = {"max_steps": 12, "logging_steps": 1}
    whole = begin(tmp_path, {**sizes(4), **arguments})
    part = go_on(tmp_path, 6, {**sizes(10), **arguments})

    assert part.state.global_step == part.state.max_steps == 12
    assert rates_of(part) == rates_of(whole)
    # 24 of the first epoch were seen: 6 are left, and 5 steps of 10.
    assert [len(part.numbers), part.state.epoch] == [56, pytest.approx(2 + 2 / 3)]
    assert part.state.num_train_epochs == 3


@pytest.mark.parametrize("epochs", [0.5, 1.5, 2.3])
def test_a_share_of_an_epoch_is_ended_where_todays_batches_end_it(epochs: float, tmp_path: Path) -> None:
    arguments = {"num_train_epochs": epochs}
    whole = begin(tmp_path / "whole", {**sizes(5), **arguments, "save_strategy": "no"})
    begin(tmp_path, {**sizes(3), **arguments})
    part = go_on(tmp_path, 2, {**sizes(5), **arguments})

    # 6 of 30 were seen: steps of 5 from there end at most a step behind those from 0.
    assert part.state.global_step == part.state.max_steps == 2 + whole.state.max_steps - 1
    assert part.rates == whole.rates


# Exactness


class Sums:
    """A subclass whose loss is a sum and its weight, so that it is one mean over a step however that is cut."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        predicted = model.predict(inputs["x"].double(), inputs["number"])
        errors = (predicted - inputs["labels"].double()).square()
        return errors.sum(), errors.numel()


@pytest.mark.parametrize("cuts", [(8, 4, 2), (2, 8, 1), (4, 4, 8)])
def test_one_global_batch_size_is_one_mathematics(cuts: tuple[int, ...], tmp_path: Path) -> None:
    options = {"model": lambda: Net(0.0).double(), "mixin": Sums}

    def one(batch: int) -> dict[str, Any]:
        return {"per_device_train_batch_size": batch, "global_batch_size": 8, "logging_steps": 1}

    whole = begin(tmp_path / "whole", one(8), options)
    begin(tmp_path / "parts", one(cuts[0]), options)
    go_on(tmp_path / "parts", 2, one(cuts[1]), options)
    last = go_on(tmp_path / "parts", 5, one(cuts[2]), options)
    losses = [[entry["loss"] for entry in seen.logs if "loss" in entry] for seen in (whole, last)]

    assert whole.state.global_step == last.state.global_step == 8
    assert last.numbers == whole.numbers[-len(last.numbers) :]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert_close(whole.weights, last.weights, 1e-10, "weights")
    assert last.rates == whole.rates
    assert rates_of(last) == rates_of(whole)


CHANGED = [
    Row("by epochs", {**BASE, **sizes(4, 2)}, POINTS),
    Row("by steps", {**BASE, **sizes(4, 2), "max_steps": 14, "num_train_epochs": 3}, POINTS),
    Row("a stream", {**BASE, **sizes(4, 2), "max_steps": 14}, {**POINTS, "train": PointStream}),
    Row("drawn anew", {**BASE, **sizes(4, 2)}, {**POINTS, "mixin": FreshOrder}),
    Row("accumulation alone", {**BASE, **sizes(3, 3)}, POINTS),
]


@pytest.mark.parametrize("row", CHANGED, ids=[row.name for row in CHANGED])
def test_a_changed_run_is_resumed_exactly(row: Row, tmp_path: Path) -> None:
    """The run that went over to other batches is a run like any other."""
    straight(tmp_path / "first", Row(row.name, {**row.arguments, **sizes(3)}, row.options))
    named = tmp_path / "first" / "checkpoint-4"
    changed = resumed(tmp_path / "changed", row, named, save_steps=1)
    saved = checkpoints(tmp_path / "changed")
    assert len(saved) == changed.state.global_step - 4 > 5
    for checkpoint in saved[:-1]:
        part = resumed(tmp_path / "resumed", row, checkpoint)
        assert_goes_on(changed, part, checkpoint.name)
        assert part.state.num_train_epochs == changed.state.num_train_epochs


# What cannot go on, and what is told


class OwnBatches:
    """A subclass with batches of its own: nobody knows how many samples each has."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return Ragged(SequentialSampler(range(SIZE)), 4, drop_last=False)


class Ragged(BatchSampler):
    def __iter__(self) -> Iterator[list[int]]:
        return iter([list(range(start, min(start + 4, SIZE))) for start in range(0, SIZE, 4)])


def test_batches_of_a_users_sampler_go_on_with_another_accumulation_alone(tmp_path: Path) -> None:
    options = {"mixin": OwnBatches}
    begin(tmp_path, sizes(4), options)
    with pytest.raises(CheckpointError, match=r"4 samples a batch.*has 8 .*those of Ragged.*Keep per_device"):
        go_on(tmp_path, 3, sizes(8), options)
    part = go_on(tmp_path, 3, sizes(4, 3), options, into=tmp_path / "other")
    assert part.numbers == [*range(12, 30), *range(30)]
    assert part.state.global_step == 3 + 2 + 3
    # Behind the end of an epoch nothing is left of it that could not be told.
    assert go_on(tmp_path, 8, sizes(8), options, into=tmp_path / "end").numbers == list(range(30))
    begins = go_on(tmp_path, 3, {**sizes(8), "ignore_data_skip": True}, options, into=tmp_path / "skip")
    assert begins.numbers[:30] == list(range(30))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")
def test_a_stream_in_workers_cannot_go_on_with_another_size(tmp_path: Path) -> None:
    options, arguments = {"train": PointStream}, {"max_steps": 8, "dataloader_num_workers": 2}
    begin(tmp_path, {**sizes(4), **arguments}, options)
    with pytest.raises(CheckpointError, match=r"is a stream, which dataloader_num_workers=2 read in parts"):
        go_on(tmp_path, 3, {**sizes(8), **arguments}, options)


def own_schedule(model: nn.Module) -> tuple[Any, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)


def test_a_schedule_of_the_users_goes_on_a_step_at_a_time(tmp_path: Path, caplog: Log) -> None:
    begin(tmp_path, sizes(4), {"optimizers": own_schedule})
    with caplog.at_level(logging.WARNING, logger="surestep"):
        part = go_on(tmp_path, 6, sizes(8), {"optimizers": own_schedule})
    assert "StepLR is no schedule that this run made for its length" in caplog.text
    assert part.state.global_step == 11
    assert part.rates == [0.5**5]


def test_a_schedule_that_waits_for_a_metric_is_left_alone(tmp_path: Path, caplog: Log) -> None:
    arguments = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 2}
    evaluated = {"evaluate": lambda: Points(9, seed=1)}
    begin(tmp_path, {**sizes(4), **arguments}, evaluated)
    with caplog.at_level(logging.WARNING, logger="surestep"):
        part = go_on(tmp_path, 6, {**sizes(8), **arguments}, evaluated)
    assert "the schedule waits for its metric as before" in caplog.text
    assert part.state.global_step == 11


def test_what_a_warm_up_counts_is_told(tmp_path: Path, caplog: Log) -> None:
    begin(tmp_path, {**sizes(4), "warmup_steps": 2})
    with caplog.at_level(logging.WARNING, logger="surestep"):
        go_on(tmp_path, 6, {**sizes(8), "warmup_steps": 2})
    assert "after step 6 it stands at step 3 of 8, with a learning rate of 0.008333 (it was 0.007143)." in caplog.text
    assert "Its warm-up counts 2 steps of today." in caplog.text


def test_nothing_is_told_where_nothing_changes(tmp_path: Path, caplog: Log) -> None:
    begin(tmp_path, sizes(4))
    with caplog.at_level(logging.WARNING, logger="surestep"):
        go_on(tmp_path, 6, sizes(4))
    assert "The checkpoint was trained with" not in caplog.text

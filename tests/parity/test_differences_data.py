"""How data is read otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import surestep
from surestep.data.samplers import SeededRandomSampler
from tests.parity.differences import shows
from tests.parity.harness import both, run
from tests.parity.models import Net, Points


class Augmented(Points):
    """The points with noise from every default generator."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        noise = random.random() + float(np.random.rand()) + torch.rand(6)
        return {**sample, "x": sample["x"] + noise}


@shows("A7")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")
def test_random_draws_of_the_data_follow_from_the_position() -> None:
    arguments = {"per_device_train_batch_size": 4, "max_steps": 20}
    # Without dropout, which draws from the generators between two batches of the original.
    objects: dict[str, Any] = {"train": Augmented, "model": lambda: Net(0.0)}
    theirs, ours = both(arguments, **objects)
    with_workers = {**arguments, "dataloader_num_workers": 2}
    theirs_with_workers, ours_with_workers = both(with_workers, **objects)
    assert theirs_with_workers.losses != theirs.losses
    assert ours_with_workers.losses == ours.losses
    for given, original in ((arguments, theirs), (with_workers, theirs_with_workers)):
        as_there = run(surestep, {**given, "data_seeding": "global"}, **objects)
        assert as_there.losses == original.losses
    # Whatever draws in the training itself draws as there.
    clean = both(arguments, train=Points, model=lambda: Net(0.3))
    assert clean[0].losses == clean[1].losses


class Listed:
    """A subclass with the original's order, whatever the size of the set."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = SeededRandomSampler(self.train_dataset, self._data_seed())  # type: ignore[attr-defined]
        sampler.rule = "randperm"
        return sampler


@shows("A8")
def test_a_large_set_is_shuffled_without_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"per_device_train_batch_size": 4, "num_train_epochs": 1}
    theirs, ours = both(arguments, train=Points)
    assert ours.numbers == theirs.numbers
    monkeypatch.setattr("surestep.data.samplers.LISTED_UP_TO", 49)
    ours = run(surestep, arguments, train=Points)
    assert ours.numbers != theirs.numbers
    assert sorted(ours.numbers) == sorted(theirs.numbers)
    assert run(surestep, arguments, train=Points, mixin=Listed).numbers == theirs.numbers


@shows("A9")
def test_each_evaluation_draws_the_same() -> None:
    def figures(side: Any, **arguments: Any) -> list[float]:
        def drive(trainer: Any) -> None:
            trainer.found = [trainer.evaluate()["eval_loss"] for _ in range(3)]
            trainer.found.append(float(torch.rand(())))

        found: list[float] = run(side, arguments, evaluate=Augmented, drive=drive).trainer.found
        return found

    theirs, ours = figures(transformers), figures(surestep)
    assert len(set(theirs[:3])) == 3
    assert len(set(ours[:3])) == 1
    # Up to the rounding of a mean.
    assert figures(surestep, data_seeding="global") == pytest.approx(theirs, rel=1e-6)
    # With a set that draws nothing, the generators of the training are moved as much as there.
    assert ours[3] == run(transformers, {}, evaluate=Points, drive=evaluated_thrice).trainer.found


def evaluated_thrice(trainer: Any) -> None:
    for _ in range(3):
        trainer.evaluate()
    trainer.found = float(torch.rand(()))

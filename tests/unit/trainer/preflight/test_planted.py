"""Mistakes planted on purpose: each is found before the first step, with the hint that mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import Points, quick
from tests.unit.trainer.preflight.planted import MISTAKES, OwnGenerator, Plant
from torch import nn
from torch.utils.data import Dataset

from surestep import Trainer
from surestep.errors import SurestepError


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_before_the_first_step(tmp_path: Path, name: str) -> None:
    plant, hint = MISTAKES[name]
    settings = plant()
    model = settings.get("model")
    before = [value.clone() for value in model.parameters()] if isinstance(model, nn.Module) else []
    steps: list[int] = []

    def run() -> None:
        folder = settings.pop("output_dir", tmp_path)
        trainer = quick(folder, settings.pop("kind", Trainer), preflight=True, **settings)
        try:
            trainer.train()
        finally:
            steps.append(trainer.state.global_step)

    with pytest.raises(SurestepError, match=f"(?s){hint}"):
        run()

    assert steps in ([], [0])
    if isinstance(model, nn.Module):
        after = list(model.parameters())
        assert all(
            one.is_meta or torch.equal(one, other) or one.isnan().any()
            for one, other in zip(before, after, strict=True)
        )


def test_there_are_many() -> None:
    assert len(MISTAKES) >= 70


class Counted(Dataset):
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0
        self.points = Points(8)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.points[index]


@pytest.mark.parametrize(("seeding", "reads"), [("global", 2), ("batch", 6)])
def test_a_preflight_reads_one_step_and_its_first_batch_twice_more(tmp_path: Path, seeding: str, reads: int) -> None:
    data = Counted()
    assert quick(tmp_path, train_dataset=data, per_device_train_batch_size=2, data_seeding=seeding).preflight().ok
    assert data.reads == reads


@pytest.mark.parametrize(
    "settings",
    [
        {"train_dataset": OwnGenerator()},  # read in this process: its state goes into checkpoints
        {"train_dataset": OwnGenerator(), "dataloader_num_workers": 1, "data_seeding": "global"},
    ],
)
def test_draws_that_a_resume_repeats_or_need_not_are_no_mistake(tmp_path: Path, settings: Plant) -> None:
    generator = settings["train_dataset"].generator
    before = generator.bit_generator.state
    assert quick(tmp_path, **settings).preflight().ok
    assert generator.bit_generator.state == before

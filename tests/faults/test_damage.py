"""A newest checkpoint that is damaged in any of its files: named, kept aside, and the one before it is used."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surestep import Trainer
from surestep.callbacks.averaging import EMACallback
from tests.small import Points, quick
from tests.unit.checkpoint.stores import make_store

Damage = Callable[[bytes, float, int], bytes | None]


def _cut(content: bytes, place: float, bit: int) -> bytes:
    return content[: int(place * len(content))]


def _flip(content: bytes, place: float, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[int(place * len(content))] ^= 1 << bit
    return bytes(flipped)


DAMAGES: dict[str, Damage] = {"cut": _cut, "bit flipped": _flip, "gone": lambda content, place, bit: None}


def trainer_of(folder: Path, **more: Any) -> Trainer:
    """A run whose checkpoints hold every kind of file."""
    usual: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 2,
        "max_steps": 6,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_dataset": Points(4),
        "track_best": ["loss"],
        "callbacks": [EMACallback()],
    }
    return quick(folder, **{**usual, **more})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """Return a folder with checkpoints 2, 4 and 6, and the weights at the end."""
    folder = tmp_path_factory.mktemp("made")
    trainer = trainer_of(folder)
    trainer.train()
    return folder, trainer.model.layer.weight.detach().clone()


def files_of(checkpoint: Path) -> list[str]:
    names = sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
    # The list is what is there, so that no kind of file is forgotten; these are not to be missing from it.
    assert {"manifest.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors", "random_0.json"} <= {
        *names
    }
    return names


def test_damage_anywhere_in_any_file_is_found_and_named(made: tuple[Path, torch.Tensor], scratch: Path) -> None:
    shutil.copytree(made[0], scratch / "run")
    newest = scratch / "run" / "checkpoint-6"
    for name in files_of(newest):
        check_damages_of(newest / name)
    assert make_store(scratch / "run").newest_valid().path == newest


def check_damages_of(path: Path) -> None:
    content = path.read_bytes()

    @settings(max_examples=12, database=None)
    @given(st.sampled_from(sorted(DAMAGES)), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
    def damaged(damage: str, place: float, bit: int) -> None:
        spoiled = DAMAGES[damage](content, place, bit)
        if spoiled is None:
            path.unlink()
        else:
            path.write_bytes(spoiled)
        found = make_store(path.parent.parent).newest_valid()
        path.write_bytes(content)
        assert found.path == path.parent.with_name("checkpoint-4")
        ((folder, problems),) = found.passed_over
        assert folder == path.parent
        assert len(problems) == 1
        assert path.name in problems[0]

    damaged()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.json", "manifest.json", "random_0.json"])
def test_a_run_goes_on_from_the_one_before_and_keeps_the_damaged_one(
    name: str, damage: str, made: tuple[Path, torch.Tensor], scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(made[0], scratch / "run")
    path = scratch / "run" / "checkpoint-6" / name
    spoiled = DAMAGES[damage](path.read_bytes(), 0.4, 3)
    if spoiled is None:
        path.unlink()
    else:
        path.write_bytes(spoiled)
    # The run ended, and its end is not known to the folder any more.
    (scratch / "run" / ".surestep-run.json").unlink()
    trainer = trainer_of(scratch / "run")
    trainer.train(resume_from_checkpoint=True)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("checkpoint-6 is passed over" in line and name in line for line in told)
    assert any("is kept as" in line and "damaged-checkpoint-6" in line for line in told)
    assert (scratch / "run" / "damaged-checkpoint-6").is_dir()
    assert trainer._first_step == 4
    assert torch.equal(trainer.model.layer.weight, made[1])
    assert make_store(scratch / "run").newest_valid().path == scratch / "run" / "checkpoint-6"

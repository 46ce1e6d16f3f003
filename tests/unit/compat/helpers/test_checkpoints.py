"""Folders of checkpoints: found, sorted and rotated as the original does it, on equal folders."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import trainer_pt_utils as their_pt_utils
from transformers import trainer_utils as theirs

from surestep.compat.helpers import checkpoints as ours
from surestep.errors import CheckpointError

STEPS = (5, 100, 20, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, step in enumerate(STEPS):
        (tmp_path / f"checkpoint-{step}").mkdir()
        os.utime(tmp_path / f"checkpoint-{step}", (1000 + 10 * place,) * 2)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    return tmp_path


def test_the_last_checkpoint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")

    assert ours.get_last_checkpoint(folder) == theirs.get_last_checkpoint(folder) == str(folder / "checkpoint-100")
    assert ours.get_last_checkpoint(empty) is theirs.get_last_checkpoint(empty) is None
    with pytest.raises(FileNotFoundError):
        theirs.get_last_checkpoint(empty / "nowhere")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        ours.get_last_checkpoint(empty / "nowhere")


@pytest.mark.parametrize("use_mtime", [True, False])
@pytest.mark.parametrize("best", [None, 3, 100, 99])
def test_sorting(folder: Path, use_mtime: bool, best: int | None) -> None:
    if use_mtime:
        # The original counts it among the checkpoints then, and would rotate it away.
        (folder / "checkpoint-best").rmdir()
    kept = None if best is None else str(folder / f"checkpoint-{best}")
    options = {"use_mtime": use_mtime, "best_model_checkpoint": kept}

    assert ours.sort_checkpoints(str(folder), **options) == theirs.sort_checkpoints(str(folder), **options)


def test_times_within_a_second_say_nothing(folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        os.utime(path, (1000, 1000))

    assert ours.sort_checkpoints(str(folder), use_mtime=True) == ours.sort_checkpoints(str(folder))


@pytest.mark.parametrize("limit", [None, 0, 1, 2, 3, 9])
@pytest.mark.parametrize("best", [None, 3, 100])
def test_rotation_leaves_the_same(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, limit: Any, best: Any
) -> None:
    other = tmp_path_factory.mktemp("other")
    for step in STEPS:
        (other / f"checkpoint-{step}").mkdir()
    for room, root in ((ours, folder), (theirs, other)):
        room.rotate_checkpoints(str(root), limit, None if best is None else str(root / f"checkpoint-{best}"))

    left = {path.name for path in folder.iterdir()} - {"checkpoint-best", "checkpoint-7"}
    assert left == {path.name for path in other.iterdir()}


def shards(folder: Path, names: dict[str, str]) -> Path:
    weights = {name: torch.full((2, 2) if name == "weight" else (2,), 3.0) for name in names}
    for file in set(names.values()):
        save_file({name: value for name, value in weights.items() if names[name] == file}, folder / file)
    index = f'{{"metadata": {{}}, "weight_map": {str(names).replace(chr(39), chr(34))}}}'
    (folder / "model.safetensors.index.json").write_text(index)
    return folder


@pytest.mark.parametrize("room", [ours, theirs])
def test_shards_are_loaded(tmp_path: Path, room: Any) -> None:
    folder = shards(
        tmp_path, {"weight": "model-00001-of-00002.safetensors", "bias": "model-00002-of-00002.safetensors"}
    )
    model = nn.Linear(2, 2)

    assert tuple(map(list, room.load_sharded_checkpoint(model, folder))) == ([], [])
    assert torch.equal(model.weight, torch.full((2, 2), 3.0))


@pytest.mark.parametrize("room", [ours, theirs])
def test_pickled_shards_are_loaded(tmp_path: Path, room: Any) -> None:
    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00001.bin")
    names = '{"weight": "pytorch_model-00001-of-00001.bin", "bias": "pytorch_model-00001-of-00001.bin"}'
    (tmp_path / "pytorch_model.bin.index.json").write_text(f'{{"weight_map": {names}}}')
    model = nn.Linear(2, 2)

    assert tuple(map(list, room.load_sharded_checkpoint(model, tmp_path))) == ([], [])
    assert torch.equal(model.weight, torch.ones(2, 2))


def test_shards_that_do_not_fit_are_told(tmp_path: Path) -> None:
    folder = shards(tmp_path, {"weight": "model-00001-of-00001.safetensors"})

    assert ours.load_sharded_checkpoint(nn.Linear(2, 2), folder, strict=False).missing_keys == ["bias"]
    with pytest.raises(CheckpointError, match="bias"):
        ours.load_sharded_checkpoint(nn.Linear(2, 2), folder)
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds the weights twice"):
        ours.load_sharded_checkpoint(nn.Linear(2, 2), folder, prefer_safe=False)
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors\.index\.json nor"):
        ours.load_sharded_checkpoint(nn.Linear(2, 2), tmp_path / "nowhere")


@pytest.mark.parametrize("room", [ours, their_pt_utils])
def test_dummy_files_go_on_the_main_process(tmp_path: Path, room: Any) -> None:
    (tmp_path / "a").touch()
    room.remove_dummy_checkpoint(False, str(tmp_path), ["a"])
    assert (tmp_path / "a").exists()
    room.remove_dummy_checkpoint(True, str(tmp_path), ["a", "b"])
    assert not (tmp_path / "a").exists()


def test_other_arguments_than_the_checkpoints_are_told(caplog: pytest.LogCaptureFixture) -> None:
    intervals = {"logging_steps": 5, "eval_steps": None, "save_steps": 10}
    args = SimpleNamespace(**intervals, per_device_train_batch_size=4, n_gpu=1)
    ours.compare_trainer_and_checkpoint_args(args, SimpleNamespace(**intervals, train_batch_size=4))
    assert not caplog.messages
    ours.compare_trainer_and_checkpoint_args(
        args, SimpleNamespace(**{**intervals, "save_steps": 7}, train_batch_size=8)
    )

    assert caplog.messages == [
        "The arguments are not those of the checkpoint: save_steps is 10, and was 7; per_device_train_batch_size is 4, "
        "and was 8."
    ]

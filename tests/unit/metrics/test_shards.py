"""Predictions in a folder, written in pieces and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tests.unit.metrics.batches import ALONE, numbers

from surestep.errors import DataError
from surestep.metrics.shards import ShardWriter, StoredPredictions, load_predictions


def write(folder: Path, outputs: list[Any], order: Any = None, **settings: Any) -> None:
    writer, start = ShardWriter(folder, **settings), 0
    for output in outputs:
        rows = len(output["label_ids"])
        positions = np.arange(start, start + rows) if order is None else order[start : start + rows]
        writer.add(output, positions)
        start += rows
    writer.finish(ALONE)


def batch(rows: int, width: int, seed: int) -> dict[str, Any]:
    logits = torch.randn(rows, width, 3, generator=numbers(seed))
    return {"predictions": (logits, {"hidden": logits[:, 0]}), "label_ids": torch.arange(rows) + 10 * seed}


OUTPUTS = [batch(4, 5, 0), batch(4, 2, 1), batch(1, 3, 2)]


@pytest.mark.parametrize("shard_bytes", [1, 300, 10**9])
def test_what_is_written_is_read(tmp_path: Path, shard_bytes: int) -> None:
    write(tmp_path / "out", OUTPUTS, shard_bytes=shard_bytes)
    (logits, inner), labels, metrics = load_predictions(tmp_path / "out")

    assert labels.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20]
    assert logits.shape == (9, 5, 3)
    np.testing.assert_array_equal(logits[:4], OUTPUTS[0]["predictions"][0])
    np.testing.assert_array_equal(logits[4:8, :2], OUTPUTS[1]["predictions"][0])
    assert (logits[4:8, 2:] == -100).all()
    assert inner["hidden"].shape == (9, 3)
    assert metrics is None
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == {1: 3, 300: 2, 10**9: 1}[shard_bytes]


def test_samples_come_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    order = np.array([8, 0, 7, 1, 6, 2, 5, 3, 4])
    write(tmp_path, OUTPUTS, order, shard_bytes=1)

    labels = np.array([0, 1, 2, 3, 10, 11, 12, 13, 20])
    np.testing.assert_array_equal(load_predictions(tmp_path).label_ids[order], labels)


def test_piece_by_piece(tmp_path: Path) -> None:
    write(tmp_path, OUTPUTS, shard_bytes=1)
    stored = StoredPredictions.open(tmp_path)
    pieces = list(stored)

    assert len(stored) == 9
    assert [positions.tolist() for positions, _ in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert pieces[1][1]["predictions"][0].shape == (4, 2, 3)
    assert stored.samples == json.loads((tmp_path / "predictions.json").read_text())["samples"] == 9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_written_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.randn(4, 3, generator=numbers()).to(dtype)
    write(tmp_path, [{"predictions": values, "label_ids": torch.arange(4)}])
    with safe_open(next(tmp_path.glob("*.safetensors")), "pt") as file:
        assert file.get_tensor("predictions").dtype == dtype

    read = load_predictions(tmp_path).predictions
    np.testing.assert_array_equal(read.astype(np.float32), values.float().numpy())


def test_two_predictions_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path, OUTPUTS)
    with pytest.raises(DataError, match="holds predictions already"):
        ShardWriter(tmp_path)


def test_a_folder_without_an_index_is_told(tmp_path: Path) -> None:
    ShardWriter(tmp_path, shard_bytes=1).add(OUTPUTS[0], np.arange(4))
    with pytest.raises(DataError, match=r"holds no predictions\.json.*did not end"):
        load_predictions(tmp_path)


def test_what_is_no_tensor_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the outputs hold a str.*ignore_keys"):
        ShardWriter(tmp_path).add({"predictions": ("a",)}, [0])


def test_nothing_predicted_is_nothing_read(tmp_path: Path) -> None:
    write(tmp_path, [])

    assert load_predictions(tmp_path) == (None, None, None)
    assert len(StoredPredictions.open(tmp_path)) == 0

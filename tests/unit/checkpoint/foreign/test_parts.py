"""What the parts of a checkpoint of the original's say when they are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from surestep.checkpoint.foreign.parts import StoredPickles
from surestep.checkpoint.foreign.progress import read_trainer_state
from surestep.checkpoint.foreign.random import read_random_state
from surestep.checkpoint.foreign.weights import read_pickled_weights
from surestep.errors import CheckpointError


def write_index(folder: Path, content: Any) -> None:
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(content))


def test_weights_in_several_files_make_one_state(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "one.bin")
    torch.save({"b": torch.zeros(2)}, tmp_path / "two.bin")
    write_index(tmp_path, {"weight_map": {"a": "one.bin", "b": "two.bin"}})
    assert {name: tuple(value.shape) for name, value in read_pickled_weights(tmp_path).items()} == {
        "a": (1,),
        "b": (2,),
    }


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([1], "index.json is damaged"),
        ({"weight_map": 5}, "index.json is damaged"),
        ({"weight_map": {"a": 5}}, "index.json is damaged"),
        ({"weight_map": {"a": "../one.bin"}}, "'../one.bin' outside of its folder"),
        ({"weight_map": {"a": "two.bin"}}, "two.bin is missing"),
        ({"weight_map": {"b": "one.bin"}}, "lists 'b', which no file"),
    ],
)
def test_an_index_that_does_not_fit_is_named(tmp_path: Path, index: Any, message: str) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "one.bin")
    write_index(tmp_path, index)
    with pytest.raises(CheckpointError, match=message):
        read_pickled_weights(tmp_path)


@pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1}, {1: torch.ones(1)}])
def test_a_file_that_is_no_state_dict_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin holds no state dict"):
        read_pickled_weights(tmp_path)


@pytest.mark.parametrize("content", [{}, [1]])
def test_a_scaler_without_a_scale_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "scaler.pt")
    with pytest.raises(CheckpointError, match=r"scaler\.pt holds no loss scale"):
        StoredPickles(tmp_path).scaler()


def test_generators_that_are_not_there_are_named(tmp_path: Path) -> None:
    assert not StoredPickles(tmp_path).has_random(0)
    with pytest.raises(CheckpointError, match=r"rng_state\.pth"):
        read_random_state(tmp_path, 0)


def test_the_generators_of_one_process_are_no_others(tmp_path: Path) -> None:
    (tmp_path / "rng_state.pth").touch()
    assert StoredPickles(tmp_path).has_random(0)
    assert not StoredPickles(tmp_path).has_random(1)


def test_each_process_has_its_own_generators(tmp_path: Path) -> None:
    from surestep.runtime.random import capture_random_state

    state = capture_random_state() | {"npu": torch.zeros(1)}
    for rank in range(2):
        torch.manual_seed(rank)
        torch.save({**state, "cpu": torch.get_rng_state()}, tmp_path / f"rng_state_{rank}.pth")
    for rank in range(2):
        torch.manual_seed(rank)
        found, problems = read_random_state(tmp_path, rank)
        assert torch.equal(found["cpu"], torch.get_rng_state())
        assert "npu" not in found
        assert "generators of npu are not known here" in problems
        assert any("several processes" in problem for problem in problems) is (rank == 0)


@pytest.mark.parametrize("text", ["{", "[]", '{"global_step": 1.5}'])
def test_a_state_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(CheckpointError, match="does not hold a trainer state"):
        read_trainer_state(tmp_path)

"""Random generators: the original's seeds, and an exact capture."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surestep.checkpoint.tree import read_tree, write_tree
from surestep.errors import ArgumentError
from surestep.runtime.random import (
    capture_random_state,
    preserved_random_state,
    restore_random_state,
    seed_everything,
)


@pytest.fixture(autouse=True)
def _outer_state() -> Any:
    with preserved_random_state():
        yield


def draw() -> tuple[Any, ...]:
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(3).tolist(),
        np.random.randn(),
        torch.rand(3).tolist(),
        torch.randn(20).tolist(),
        torch.randperm(7).tolist(),
    )


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1])
def test_a_seed_has_the_effect_of_the_original(seed: int) -> None:
    from transformers import set_seed

    set_seed(seed)
    expected = draw()
    seed_everything(seed)
    assert draw() == expected


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_named(seed: int) -> None:
    with pytest.raises(ArgumentError, match=f"seed={seed}"):
        seed_everything(seed)


@pytest.mark.parametrize("drawn", [0, 1, 2, 5])
@pytest.mark.parametrize("stored", [False, True])
def test_a_captured_state_gives_the_same_numbers_again(tmp_path: Path, drawn: int, stored: bool) -> None:
    seed_everything(7)
    for _ in range(drawn):
        # An odd number of normal draws leaves the second of a pair waiting in the generator.
        random.gauss(0, 1)
        np.random.randn()
        torch.randn(1)
    state = capture_random_state()
    expected = [draw() for _ in range(3)]
    if stored:
        write_tree(tmp_path, "random_0", state)
        state = read_tree(tmp_path, "random_0")
    assert restore_random_state(state) == []
    assert [draw() for _ in range(3)] == expected


def test_another_bit_generator_of_numpy_is_captured_too(tmp_path: Path) -> None:
    original = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(3))
        write_tree(tmp_path, "random", capture_random_state())
        expected = np.random.rand(3).tolist()
        restore_random_state(read_tree(tmp_path, "random"))
        assert np.random.rand(3).tolist() == expected
    finally:
        np.random.set_bit_generator(original)


def test_the_state_of_the_original_is_taken() -> None:
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    expected = draw()
    assert restore_random_state(state) == []
    assert draw() == expected


def test_a_body_leaves_no_trace_in_the_generators() -> None:
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with pytest.raises(ZeroDivisionError), preserved_random_state():
        assert draw() != [1 / 0]
    assert draw() == expected


class Cards:
    """What torch.cuda offers, with two cards and no hardware."""

    def __init__(self, count: int) -> None:
        self.states = [torch.tensor([card], dtype=torch.uint8) for card in range(count)]

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return bool(self.states)

    def device_count(self) -> int:
        return len(self.states)

    def get_rng_state_all(self) -> list[torch.Tensor]:
        return list(self.states)

    def set_rng_state(self, state: torch.Tensor, card: int = 0) -> None:
        self.states[card] = state


def test_every_card_is_captured_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = Cards(2)
    monkeypatch.setattr(torch, "cuda", cards)
    state = capture_random_state()
    saved = state["cuda"]
    cards.states = [torch.zeros(1), torch.zeros(1)]
    assert restore_random_state(state) == []
    assert cards.states == saved
    # The original keeps the state of one card without a list.
    cards.states = [torch.zeros(1), torch.zeros(1)]
    assert restore_random_state(state | {"cuda": saved[1]}) == []
    assert cards.states[0] is saved[1]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_cards_is_told(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    state = capture_random_state() | {"cuda": Cards(2).states}
    cards = Cards(count)
    monkeypatch.setattr(torch, "cuda", cards)
    (problem,) = restore_random_state(state)
    assert "2 cuda generators" in problem
    assert f"has {count} cuda devices" in problem


def test_a_device_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", Cards(0))
    state = capture_random_state() | {"cuda": torch.zeros(1), "mps": torch.zeros(1)}
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert len(restore_random_state(state)) == 2


def test_the_generator_of_mps_is_captured_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [torch.tensor([5])]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: held[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: held.__setitem__(0, state))
    state = capture_random_state()
    held[0] = torch.tensor([6])
    assert restore_random_state(state) == []
    assert held[0] is state["mps"]


FACTS = """
import os, sys, torch
from {module} import enable_full_determinism
for warn_only in (True, False):
    enable_full_determinism(11, warn_only=warn_only)
    print(sorted((key, value) for key, value in os.environ.items() if key in {names!r}))
    print(torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    print(torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.rand(2).tolist())
"""
NAMES = [
    "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_WORKSPACE_CONFIG",
    "ASCEND_LAUNCH_BLOCKING",
    "HCCL_DETERMINISTIC",
    "FLASH_ATTENTION_DETERMINISTIC",
]


def test_full_determinism_sets_what_the_original_sets() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", FACTS.format(module=module, names=NAMES)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for module in ("transformers.trainer_utils", "surestep.runtime.random")
    ]
    assert outputs[0] == outputs[1]
    assert "True" in outputs[0]
